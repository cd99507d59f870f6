"""Optimizer groups with layer-wise learning-rate decay and selective weight decay.

Layer 0 holds the embeddings, layer i + 1 holds block i, and everything behind the trunk is the last layer, depth + 1,
whose rate is the base rate. Each layer below it is multiplied by the decay rate once more.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable

from torch import nn

EMBEDDINGS = ('cls_token', 'pos_embed', 'register_tokens', 'patch_embed')
# Their decay shrinks what they encode instead of regularising; published recipes decayed them all the same.
UNDECAYED_TOKENS = ('cls_token', 'pos_embed', 'register_tokens')
_BLOCK = re.compile(r'blocks\.(\d+)\.')


@dataclasses.dataclass
class ParameterGroup:
    """Parameters that share a learning rate and a weight decay.

    Args:
        name: 'layer_<id>_decay' or 'layer_<id>_no_decay'.
        lr_scale: Learning rate over the base rate.
        weight_decay: Weight decay of the group.
    """

    name: str
    lr_scale: float
    weight_decay: float
    params: list[nn.Parameter] = dataclasses.field(default_factory=list)
    param_names: list[str] = dataclasses.field(default_factory=list)


def layer_id(name: str, trunk: str, depth: int) -> int:
    """Layer of a parameter: 0 embeddings, i + 1 block i, depth + 1 all else.

    Args:
        name: Qualified name in the model.
        trunk: Prefix of the trunk in the model, as in 'backbone.'.
        depth: Number of blocks of the trunk.
    """
    if not name.startswith(trunk):
        return depth + 1
    local = name.removeprefix(trunk)
    if local.split('.')[0] in EMBEDDINGS:
        return 0
    block = _BLOCK.match(local)
    return int(block.group(1)) + 1 if block else depth + 1


def _decays(name: str, parameter: nn.Parameter, decay_tokens: bool) -> bool:
    if parameter.ndim == 1 or name.endswith('.bias'):
        return False
    return decay_tokens or name.split('.')[-1] not in UNDECAYED_TOKENS


def layer_decay_groups(
    named_parameters: Iterable[tuple[str, nn.Parameter]],
    *,
    trunk: str,
    depth: int,
    rate: float,
    weight_decay: float,
    decay_tokens: bool = False,
) -> list[ParameterGroup]:
    """Groups trainable parameters by layer and by whether they decay, in order of registration.

    Args:
        named_parameters: Of the whole model; those without gradient are left out.
        trunk: Prefix of the trunk in the model, as in 'backbone.'.
        depth: Number of blocks of the trunk, asked from the backbone.
        rate: Factor from each layer to the one below it.
        weight_decay: Of weights; vectors and biases have none.
        decay_tokens: Also decay position embedding and class token, as the published recipes did.
    """
    groups: dict[str, ParameterGroup] = {}
    for name, parameter in named_parameters:
        if not parameter.requires_grad:
            continue
        layer = layer_id(name, trunk, depth)
        decays = _decays(name, parameter, decay_tokens)
        key = f'layer_{layer}_{"decay" if decays else "no_decay"}'
        if key not in groups:
            groups[key] = ParameterGroup(key, rate ** (depth + 1 - layer), weight_decay if decays else 0.0)
        groups[key].params.append(parameter)
        groups[key].param_names.append(name)
    return list(groups.values())
