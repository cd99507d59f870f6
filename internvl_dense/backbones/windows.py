"""Which blocks of a trunk attend within windows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeGuard

from internvl_dense.backbones.spec import BackboneSpec
from internvl_dense.registry import unknown

Windows = tuple[int | None, ...]
STAGES = 'stages'


def resolve_windows(
    spec: BackboneSpec, window_size: int | Sequence[int | None] | None, global_blocks: str | Sequence[int] = (),
) -> Windows:
    """Side of the window of each block in tokens; None where the block attends to all tokens.

    `window_faults` must have found nothing.

    Args:
        spec: The variant, which knows its depth and its stages.
        window_size: One side for all blocks, or a list with one entry for each block.
        global_blocks: Blocks without window: 'stages' (the last block of each quarter of the depth, as ViTDet has it)
            or 0-based numbers; negative ones count from the end.
    """
    if window_size is None or isinstance(window_size, int):
        numbers = _numbers(spec, global_blocks)
        return tuple(None if index in numbers else window_size for index in range(spec.depth))
    return tuple(window_size)


def window_faults(
    spec: BackboneSpec, window_size: int | Sequence[int | None] | None, global_blocks: str | Sequence[int] = (),
) -> list[str]:
    """What is wrong with the two options, one sentence for each fault."""
    faults = []
    if _is_list(window_size):
        if len(window_size) != spec.depth:
            faults.append(f'window_size lists {len(window_size)} blocks, {spec.name} has {spec.depth}; '
                          'give one entry for each block, or one number for all')
        faults += [f'window_size {size!r} of block {index} must be a whole number of tokens from 1, or None (global)'
                   for index, size in enumerate(window_size) if not (size is None or _is_side(size))]
    elif not (window_size is None or _is_side(window_size)):
        faults.append(f'window_size {window_size!r} must be a whole number of tokens from 1, None (global) or a list '
                      'of them, one for each block')
    return faults + _global_faults(spec, window_size, global_blocks)


def _global_faults(spec: BackboneSpec, window_size: object, global_blocks: object) -> list[str]:
    if _is_list(global_blocks):
        if not global_blocks:
            return []
        outside = [index for index in global_blocks if not isinstance(index, int) or not _is_block(spec, index)]
        faults = [f'global_blocks {outside}: {spec.name} has blocks 0..{spec.depth - 1}'] if outside else []
    else:
        name = unknown('global_blocks', global_blocks, [STAGES])
        faults = [] if global_blocks == STAGES else [f'{name} Or give a list of block numbers.']
    if window_size is None or _is_list(window_size):
        faults.append(f'global_blocks {global_blocks!r} needs one number as window_size: without it all blocks are '
                      'global, and a list says so itself, by None')
    return faults


def _is_list(value: object) -> TypeGuard[Sequence[Any]]:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _is_side(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_block(spec: BackboneSpec, index: int) -> bool:
    return -spec.depth <= index < spec.depth


def _numbers(spec: BackboneSpec, global_blocks: str | Sequence[int]) -> set[int]:
    chosen = spec.stage_indices if global_blocks == STAGES else global_blocks
    return {int(index) % spec.depth for index in chosen}
