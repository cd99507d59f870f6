"""The options of ViT-Adapter: what they may be, and what follows from them and the trunk."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

from internvl_dense.backbones.internvit import InternViT
from internvl_dense.backbones.spec import BackboneSpec
from internvl_dense.dense.spatial_prior import STRIDES
from internvl_dense.errors import UserError, problems
from internvl_dense.registry import unknown

MODES = ('interact', 'extract')
VIT_FEATURES = ('last', 'stages', 'none')
LEVELS = tuple(range(len(STRIDES)))


@dataclasses.dataclass(frozen=True)
class AdapterOptions:
    """The keyword arguments of `InternViTAdapter`, where they are explained; `resolved` fills in what they leave open.

    Args:
        runs: First and last block of each run; set by `resolved`.
    """

    out_indices: Sequence[int]
    interaction_indexes: Sequence[Sequence[int]] | None
    mode: str
    vit_features: str
    published: bool
    conv_inplane: int
    n_points: int
    deform_num_heads: int | None
    deform_ratio: float
    with_cffn: bool
    cffn_ratio: float
    init_values: float
    use_extra_extractor: bool
    use_final_norm: bool
    drop_path_rate: float | None
    deform_attention: str
    runs: tuple[tuple[int, int], ...] = ()

    def resolved(self, trunk: InternViT) -> AdapterOptions:
        """These options for one trunk, with nothing left open.

        Raises:
            UserError: They do not fit it or each other; all problems at once.
        """
        full = dataclasses.replace(
            self, out_indices=_levels(self.out_indices), deform_num_heads=self.deform_num_heads or trunk.spec.num_heads,
            drop_path_rate=_rate_of(trunk) if self.drop_path_rate is None else self.drop_path_rate,
        )
        runs, run_faults = _runs(trunk.spec, self.interaction_indexes)
        faults = [*run_faults, *_range_faults(full), *_width_faults(trunk.spec, full),
                  *_mode_faults(trunk, full, len(runs))]
        if faults:
            raise UserError(problems(f'adapter of {trunk.spec.name}', faults))
        return dataclasses.replace(full, runs=runs)

    @property
    def token_levels(self) -> tuple[int, ...]:
        """Levels that live as tokens: all but the finest; without injectors only those that the outputs need."""
        if self.mode == 'interact':
            return LEVELS[1:]
        needed = {*self.out_indices, *([1] if 0 in self.out_indices else [])}  # the finest is made from the next one
        return tuple(level for level in LEVELS[1:] if level in needed)


def default_runs(spec: BackboneSpec) -> tuple[tuple[int, int], ...]:
    """First and last block of four runs of equal length, as far as the depth allows: they end with the stages."""
    lasts = sorted(set(spec.stage_indices))
    return tuple((first + 1, last) for first, last in zip([-1, *lasts], lasts, strict=False))


def _levels(out_indices: Sequence[int]) -> tuple[int, ...]:
    if isinstance(out_indices, str):
        raise UserError(f'out_indices {out_indices!r} names maps of a trunk; an adapter gives maps of strides '
                        f'{", ".join(map(str, STRIDES))}, of which out_indices chooses some of {list(LEVELS)}')
    return tuple(out_indices)


def _rate_of(trunk: InternViT) -> float:
    return max((float(getattr(block.drop_path, 'rate', 0)) for block in trunk.blocks), default=0.0)


def _runs(
    spec: BackboneSpec, indexes: Sequence[Sequence[int]] | None
) -> tuple[tuple[tuple[int, int], ...], list[str]]:
    """The runs of blocks, and what is wrong with them."""
    if indexes is None:
        return default_runs(spec), []
    rule = (f'interaction_indexes {[list(run) for run in indexes]}: each run is [first, last] with first <= last, the '
            f'first one begins with block 0, every other one behind the run before it, and the last block of '
            f'{spec.name} is {spec.depth - 1}, as in {[list(run) for run in default_runs(spec)]}')
    if not indexes or any(len(run) != 2 for run in indexes):
        return (), [rule]
    runs = tuple((int(run[0]), int(run[1])) for run in indexes)
    firsts = [0, *(last + 1 for _, last in runs[:-1])]
    in_order = [first for first, _ in runs] == firsts and all(first <= last for first, last in runs)
    return runs, [] if in_order and runs[-1][1] < spec.depth else [rule]


def _range_faults(options: AdapterOptions) -> Iterator[str]:
    levels = list(options.out_indices)
    if not levels or levels != sorted(set(levels) & set(LEVELS)):
        yield (f'out_indices {levels}: choose from {list(LEVELS)} in this order, the maps of strides '
               f'{", ".join(map(str, STRIDES))}')
    if options.mode not in MODES:
        yield unknown('mode', options.mode, MODES)
    if options.vit_features not in VIT_FEATURES:
        yield unknown('vit_features', options.vit_features, VIT_FEATURES)
    for name in ('conv_inplane', 'n_points', 'cffn_ratio'):
        if getattr(options, name) <= 0:
            yield f'{name} {getattr(options, name)} must be positive'
    if options.drop_path_rate is not None and not 0 <= options.drop_path_rate < 1:
        yield f'drop_path_rate {options.drop_path_rate} is outside [0, 1)'


def _width_faults(spec: BackboneSpec, options: AdapterOptions) -> Iterator[str]:
    inner, heads = int(spec.embed_dim * options.deform_ratio), options.deform_num_heads or spec.num_heads
    if heads < 0 or inner <= 0 or inner % heads:
        yield (f'deform_ratio {options.deform_ratio} of {spec.embed_dim} channels is {inner}, no multiple of '
               f'deform_num_heads {heads}')
    if options.with_cffn and options.cffn_ratio > 0 and int(spec.embed_dim * options.cffn_ratio) == 0:
        yield f'cffn_ratio {options.cffn_ratio} of {spec.embed_dim} channels leaves none'


def _mode_faults(trunk: InternViT, options: AdapterOptions, num_runs: int) -> Iterator[str]:
    if options.mode == 'extract' and not trunk.frozen:
        yield "mode='extract' runs the trunk without gradients, so it cannot be trained: say frozen=True"
    if options.vit_features == 'stages' and num_runs != len(LEVELS):
        yield f"vit_features='stages' needs {len(LEVELS)} interactions, one for each map; there are {num_runs}"
    if options.published and (not trunk.spec.cls_token or trunk.spec.num_register_tokens):
        yield 'published=True needs a variant with a class token and no registers, as the published one was'
    if trunk.return_cls:
        yield 'return_cls: the adapter gives maps alone'
