"""Makes InternViT known to a transformers library that the caller imported and hands over.

After `InternViTConfig = register(transformers)`, every model there that takes a `backbone_config` takes this one.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import Any

from internvl_dense.backbones.hf_door import (
    MODEL_TYPE,
    InternViTHFBackbone,
    blocks_of,
    describe,
    spec_of,
    stage_names,
)
from internvl_dense.backbones.internvit import resolve_indices
from internvl_dense.backbones.spec import BackboneSpec
from internvl_dense.errors import UserError, problems

DEFAULT = 'internvit_6b_224px'
CLASS_NAME = 'InternViTConfig'
NEEDED = ('AutoBackbone', 'AutoConfig', 'PreTrainedConfig')
OWN = ('weights', 'out_features', 'out_indices', 'reshape_hidden_states', 'options')
TAKEN_FROM_BASE = {'model_type', 'output_hidden_states', 'return_dict'}


def register(transformers: ModuleType) -> Any:
    """Registers config and backbone with `AutoConfig` and `AutoBackbone`; a second call returns the same class.

    Args:
        transformers: The library, version 5.

    Returns:
        A config class, with the arguments of `set_up`. A model that takes a `backbone_config` takes its instances, and
        `from_pretrained` finds them in a config.json.

    Raises:
        UserError: The library lacks what is needed.
    """
    missing = [name for name in NEEDED if not hasattr(transformers, name)]
    if missing:
        raise UserError(f'transformers {getattr(transformers, "__version__", "?")} has no {", ".join(missing)}; '
                        'version 5 is needed: pip install "transformers>=5"')
    registered = getattr(transformers, f'_{MODEL_TYPE}', None)
    if registered is None:
        registered = _config_class(transformers.PreTrainedConfig)
        transformers.AutoConfig.register(MODEL_TYPE, registered)
        transformers.AutoBackbone.register(registered, InternViTHFBackbone)
        setattr(transformers, f'_{MODEL_TYPE}', registered)
    return registered


def set_up(
    config: Any,
    variant: str = DEFAULT,
    weights: str | None = None,
    out_features: Sequence[str] | None = None,
    out_indices: Sequence[int] | None = None,
    reshape_hidden_states: bool = True,
    options: dict[str, Any] | None = None,
) -> None:
    """Gives a config of transformers its values; those that follow from the variant are derived.

    Args:
        config: The instance. A derived value that it has already, as one read from a file has, must be the same.
        variant: A registered variant.
        weights: As for `create_backbone`; read when a model is built, and not when it is loaded by `from_pretrained`.
        out_features: Stages by name; four spread over the depth if None.
        out_indices: The same by position in `stage_names`, where 1 is the first block.
        reshape_hidden_states: Maps rather than tokens, see `InternViTHFBackbone`.
        options: Further arguments of `create_backbone`, such as `frozen`, `attention`, `patch_size` or `depth`.

    Raises:
        UserError: Unknown variant, option or stage, or values that contradict each other.
    """
    options = dict(options or {})
    if 'out_indices' in options:
        raise UserError("options of a backbone config: write out_features=['stage1', ...] instead of out_indices")
    spec = spec_of(variant, options)
    blocks = _blocks(spec, out_features, out_indices)
    derived = describe(spec, blocks, reshape_hidden_states).to_dict()
    names = [name for name in derived if name not in TAKEN_FROM_BASE]
    wrong = [f'{name}={vars(config)[name]!r} is {derived[name]!r} by the variant and its options'
             for name in names if vars(config).get(name) not in (None, derived[name])]
    if wrong:
        raise UserError(problems(f'backbone config of {variant}', wrong))
    for name in names:
        setattr(config, name, derived[name])
    config.variant, config.weights, config.options = variant, weights, options


def _blocks(
    spec: BackboneSpec, out_features: Sequence[str] | None, out_indices: Sequence[int] | None
) -> tuple[int, ...]:
    """0-based blocks of the outputs, however they are given."""
    if out_indices is None:
        return resolve_indices(spec, 'stages') if out_features is None else blocks_of(spec, out_features)
    names = dict(enumerate(stage_names(spec)))
    chosen = [names.get(index % len(names) if index < 0 else index, f'stage{index}') for index in out_indices]
    if out_features is not None and list(out_features) != chosen:
        raise UserError(f'out_indices {list(out_indices)} are {chosen}, out_features says {list(out_features)}; give '
                        'one of them')
    return blocks_of(spec, chosen)


def _config_class(base: Any) -> Any:
    def __init__(self: Any, variant: str = DEFAULT, **values: Any) -> None:
        own = {key: values.pop(key) for key in OWN if key in values}
        base.__init__(self, **values)
        set_up(self, variant, **own)

    def trunk_options(self: Any) -> dict[str, Any]:
        return {**self.options, 'out_indices': tuple(index - 1 for index in self.out_indices)}

    body = {'model_type': MODEL_TYPE, '__init__': __init__, 'trunk_options': property(trunk_options),
            '__module__': __name__, '__doc__': 'Describes an InternViT to transformers; see `set_up`.'}
    return type(base)(CLASS_NAME, (base,), body)
