"""The table of rules for sizes in a configuration. A new check is a new row here; the numbers come in plain."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from internvl_dense.data.rules import Finding, Problem, Rule, run_rules

Size = tuple[int, int]

# Patch sizes offered as a way out lie this close: the patch embedding is resampled, which a large change would spoil.
MAX_PATCH_CHANGE = 4


@dataclass(frozen=True)
class Geometry:
    """The numbers of a configuration that must fit together.

    Args:
        crop_size: Height and width of a training crop and of a window in sliding-window inference, pixels.
        patch_size: Side of a ViT patch, pixels.
        stride: Step of the sliding window, pixels (height, width); None for whole-image inference.
        batch_per_gpu: Images a GPU and step.
        num_gpus: Processes that train together.
        norm: 'BN', 'SyncBN' or another norm of the head; only these two count images.
        pools_to_one: The head pools to 1x1 before a norm (the pyramid pooling of UperNet and PSPNet).
    """

    crop_size: Size
    patch_size: int
    stride: Size | None = None
    batch_per_gpu: int = 2
    num_gpus: int = 1
    norm: str = 'SyncBN'
    pools_to_one: bool = False


def check_geometry(
    crop_size: Size,
    patch_size: int,
    stride: Size | None = None,
    batch_per_gpu: int = 2,
    num_gpus: int = 1,
    norm: str = 'SyncBN',
    pools_to_one: bool = False,
) -> list[Problem]:
    """Runs every rule on the numbers of `Geometry`; raises nothing."""
    return run_rules(
        GEOMETRY_RULES, Geometry(crop_size, patch_size, stride, batch_per_gpu, num_gpus, norm, pools_to_one)
    )


def not_positive(geometry: Geometry) -> Iterator[Finding]:
    """Sizes and counts are at least 1."""
    values = {
        'crop_size': min(geometry.crop_size),
        'patch_size': geometry.patch_size,
        'stride': min(geometry.stride) if geometry.stride else 1,
        'batch_per_gpu': geometry.batch_per_gpu,
        'num_gpus': geometry.num_gpus,
    }
    for name, value in values.items():
        if value < 1:
            yield None, f'{name} holds {value}; it must be at least 1.'


def crop_below_patch(geometry: Geometry) -> Iterator[Finding]:
    """A crop holds a patch."""
    if 0 < min(geometry.crop_size) < geometry.patch_size:
        yield None, f'crop_size {geometry.crop_size} is smaller than one patch of {geometry.patch_size}.'


def crop_not_patches(geometry: Geometry) -> Iterator[Finding]:
    """A crop is whole patches."""
    crop, patch = geometry.crop_size, geometry.patch_size
    if patch < 1 or min(crop) < patch or all(side % patch == 0 for side in crop):
        return
    lower = (crop[0] // patch * patch, crop[1] // patch * patch)
    upper = (-(-crop[0] // patch) * patch, -(-crop[1] // patch) * patch)
    other = _fitting_patch(crop, patch)
    way_out = f' Or set patch_size={other} to resample the patch embedding.' if other else ''
    yield None, f'crop_size {crop} is not a multiple of patch_size {patch}; nearest: {lower} or {upper}.{way_out}'


def stride_above_crop(geometry: Geometry) -> Iterator[Finding]:
    """Windows leave no gap."""
    if geometry.stride and any(step > side for step, side in zip(geometry.stride, geometry.crop_size, strict=True)):
        half = (geometry.crop_size[0] * 2 // 3, geometry.crop_size[1] * 2 // 3)
        yield (
            None,
            f'stride {geometry.stride} is larger than crop_size {geometry.crop_size}: pixels between windows would '
            f'get no prediction. At most the crop size; two thirds of it, {half}, is usual.',
        )


def one_value_per_channel(geometry: Geometry) -> Iterator[Finding]:
    """Batch norm sees several values."""
    images = {'BN': geometry.batch_per_gpu, 'SyncBN': geometry.batch_per_gpu * geometry.num_gpus}.get(geometry.norm)
    if geometry.pools_to_one and images == 1:
        yield (
            None,
            f'{geometry.norm} behind a pooling to 1x1 sees one value per channel with 1 image: it cannot be '
            "normalised in training. Use at least 2 images per GPU, SyncBN over several GPUs, or norm 'GN'.",
        )


GEOMETRY_RULES: tuple[Rule[Geometry], ...] = (
    Rule('not_positive', 'error', not_positive),
    Rule('crop_below_patch', 'error', crop_below_patch),
    Rule('crop_not_patches', 'error', crop_not_patches),
    Rule('stride_above_crop', 'error', stride_above_crop),
    Rule('one_value_per_channel', 'error', one_value_per_channel),
)


def _fitting_patch(crop: Size, patch: int) -> int | None:
    """The nearest other patch size that divides the crop, if one is near; the larger of two (fewer tokens)."""
    sizes = range(max(2, patch - MAX_PATCH_CHANGE), patch + MAX_PATCH_CHANGE + 1)
    fitting = [size for size in sizes if all(side % size == 0 for side in crop)]
    return min(fitting, key=lambda size: (abs(size - patch), -size), default=None)
