"""Compares the tensors of a checkpoint with a backbone, by names and shapes alone."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterable, Mapping, Sequence

import torch

from internvl_dense.backbones.dialects import Layout, Slot, find_layout
from internvl_dense.backbones.internvit import InternViT
from internvl_dense.backbones.load_report import CheckpointMismatchError, LoadReport, Shape, matches
from internvl_dense.backbones.position import class_slots
from internvl_dense.backbones.spec import BackboneSpec
from internvl_dense.backbones.weight_files import WeightFiles

POSITION, KERNEL, CLASS = 'pos_embed', 'patch_embed.proj.weight', 'cls_token'
FIRST_KEYS = 5  # shown when no key is known
# Activations of config.json for each kind of MLP: 'gelu' is the exact (erf) GELU there.
ACTIVATIONS = {'gelu': 'gelu', 'swiglu': 'silu'}


@dataclasses.dataclass(frozen=True)
class NativeView:
    """The tensors of a checkpoint under native names.

    Args:
        files: The checkpoint.
        layout: Its dialect and prefix.
        slots: Where each trunk key of the file belongs.
        shapes: Native key to shape; parts of a fused tensor are put together.
        incomplete: One sentence for each fused tensor whose parts do not add up.
        others: Keys of the file that are no part of the trunk.
    """

    files: WeightFiles
    layout: Layout
    slots: Mapping[str, Slot]
    shapes: Mapping[str, Shape]
    incomplete: tuple[str, ...]
    others: tuple[str, ...]

    @property
    def depth(self) -> int:
        """Number of blocks."""
        return _depth(self.shapes)


@functools.lru_cache(maxsize=32)
def expected_shapes(spec: BackboneSpec) -> Mapping[str, Shape]:
    """Native key to shape for a variant, from a build without memory."""
    with torch.device('meta'):
        return shapes_of(InternViT(spec, attention='eager'))


def shapes_of(module: torch.nn.Module) -> dict[str, Shape]:
    """Key to shape of a module's state."""
    return {key: tuple(value.shape) for key, value in module.state_dict().items()}


def native_view(files: WeightFiles) -> NativeView:
    """Finds the dialect of a checkpoint and puts its keys under native names.

    Raises:
        CheckpointMismatchError: No key belongs to InternViT.
    """
    layout = find_layout(files.tensors)
    if layout is None:
        first = ', '.join(list(files.tensors)[:FIRST_KEYS])
        raise CheckpointMismatchError(f'{files.path}: no key of the file belongs to InternViT; first keys: {first}')
    slots = {key: slot for key in files.tensors if (slot := layout.to_native(key)) is not None}
    shapes, incomplete = _put_together(files, slots)
    others = tuple(key for key in files.tensors if key not in slots)
    return NativeView(files, layout, slots, shapes, incomplete, others)


def _put_together(files: WeightFiles, slots: Mapping[str, Slot]) -> tuple[dict[str, Shape], tuple[str, ...]]:
    sources: dict[str, list[str]] = {}
    for key, slot in slots.items():
        sources.setdefault(slot.key, []).append(key)
    shapes: dict[str, Shape] = {}
    incomplete = []
    for native, keys in sources.items():
        own = [files.tensors[key].shape for key in keys]
        total = slots[keys[0]].parts
        if sorted(slots[key].part for key in keys) != list(range(total)) or len(set(own)) > 1:
            incomplete.append(f'{native} needs {total} tensor(s) of equal shape, the file has '
                              + ', '.join(f'{key} {shape}' for key, shape in zip(keys, own, strict=True)))
        shapes[native] = own[0] if total == 1 else (own[0][0] * total, *own[0][1:])
    return shapes, tuple(incomplete)


def compare(view: NativeView, spec: BackboneSpec, expected: Mapping[str, Shape]) -> LoadReport:
    """Matches a checkpoint with the keys and shapes of a backbone.

    A variant without class token, as detectors have it, takes files with one: token and position are dropped.

    Args:
        view: The checkpoint.
        spec: The backbone's variant, which knows what its files hold besides and which blocks it drops.
        expected: Native key to shape of the backbone.
    """
    surplus = [key for key in view.shapes if key not in expected and key != CLASS]
    dropped = tuple(key for key in surplus if _block(key) in spec.dropped_blocks)
    extras = spec.weights.known_extras if spec.weights else ()
    rest = [key for key in (*surplus, *view.others) if key not in dropped]
    known = tuple(key for key in rest if matches(key, extras) or view.layout.is_known_unused(key))
    common = [key for key in expected if key in view.shapes]
    differing = {key: (view.shapes[key], expected[key]) for key in common if view.shapes[key] != expected[key]}
    resized = {key: pair for key, pair in differing.items() if _can_resize(key, *pair)}
    return LoadReport(
        path=str(view.files.path), dialect=str(view.layout), variant=spec.name,
        loaded=tuple(common), num_parameters=sum(math.prod(expected[key]) for key in common),
        missing=tuple(key for key in expected if key not in view.shapes),
        unexpected=tuple(key for key in rest if key not in known),
        known_unused=known, dropped=dropped, dropped_class=_dropped_class(view, spec), resized=resized,
        shape_mismatch={key: pair for key, pair in differing.items() if key not in resized},
        faults=(*view.incomplete, *_grid_faults(view, spec), *_dtype_faults(view, common),
                *_config_faults(view.files.config, spec)),
        depths=(view.depth, _depth(expected)), file_keys=tuple(view.shapes), model_keys=tuple(expected),
    )


def find_fitting(view: NativeView, candidates: Iterable[BackboneSpec], allow_missing: Sequence[str]) -> list[str]:
    """Names of the variants that a checkpoint fits; of several, those with least to resample and to drop."""
    ranked: dict[tuple[int, int], list[str]] = {}
    for spec in candidates:
        report = compare(view, spec, expected_shapes(spec))
        if not report.differences(allow_missing):
            ranked.setdefault((len(report.resized), len(report.dropped)), []).append(spec.name)
    return ranked[min(ranked)] if ranked else []


def _block(key: str) -> int:
    parts = key.split('.')
    return int(parts[1]) if parts[0] == 'blocks' else -1


def _depth(shapes: Iterable[str]) -> int:
    return 1 + max((_block(key) for key in shapes), default=-1)


def _can_resize(key: str, in_file: Shape, in_model: Shape) -> bool:
    if key == POSITION:  # whether its grid is square is told by _grid_faults
        return len(in_file) == 3 and in_file[::2] == in_model[::2]
    return key == KERNEL and len(in_file) == 4 and in_file[:2] == in_model[:2] and in_file[2] == in_file[3]


def _dropped_class(view: NativeView, spec: BackboneSpec) -> tuple[str, ...]:
    """What a variant without class token leaves of the file's; published detectors keep its slot, unused."""
    if spec.cls_token:
        return ()
    shape = view.shapes.get(POSITION, ())
    has_slot = len(shape) == 3 and class_slots(shape[1]) == 1
    return (CLASS,) * (CLASS in view.shapes) + (f'class slot of {POSITION}',) * has_slot


def _grid_faults(view: NativeView, spec: BackboneSpec) -> list[str]:
    shape = view.shapes.get(POSITION, ())
    if len(shape) != 3:  # told as another shape
        return []
    found, needed = class_slots(shape[1]), int(spec.cls_token or CLASS in view.shapes)
    if found is not None and found >= needed:
        return []
    return [f'{POSITION}: {shape[1] - needed} positions after {needed} class slot(s) form no square grid']


def _dtype_faults(view: NativeView, keys: Sequence[str]) -> list[str]:
    wanted = set(keys)
    found = {
        view.files.tensors[key].dtype for key, slot in view.slots.items()
        if slot.key in wanted and not view.files.tensors[key].dtype.is_floating_point
    }
    return [f'weights of dtype {dtype} are quantised; use the file of the original weights' for dtype in found]


def _config_faults(config: Mapping[str, object], spec: BackboneSpec) -> list[str]:
    """Facts that no shape tells, from the config.json beside the weights."""
    vision = config.get('vision_config', config)
    if not isinstance(vision, Mapping):
        return []
    wanted = {
        'num_attention_heads': spec.num_heads, 'layer_norm_eps': spec.norm_eps, 'hidden_act': ACTIVATIONS[spec.mlp],
    }
    return [
        f'config.json says {name} {vision[name]}, the variant has {value}'
        for name, value in wanted.items() if name in vision and vision[name] != value
    ]
