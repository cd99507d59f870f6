"""Loads published weights into a backbone: any dialect, strict, with one copy of the weights in memory."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import nn

from internvl_dense.backbones.fitting import (
    KERNEL,
    POSITION,
    NativeView,
    compare,
    expected_shapes,
    find_fitting,
    native_view,
    shapes_of,
)
from internvl_dense.backbones.internvit import InternViT
from internvl_dense.backbones.layers import INIT_STD, init_layer
from internvl_dense.backbones.load_report import CheckpointMismatchError, LoadReport, Shape
from internvl_dense.backbones.position import class_slots, resize_patch_kernel, resize_position
from internvl_dense.backbones.spec import BackboneSpec
from internvl_dense.backbones.trunk_keys import is_trunk_key
from internvl_dense.backbones.variants import VARIANTS
from internvl_dense.backbones.weight_files import open_weights

__all__ = ['CheckpointMismatchError', 'LoadReport', 'check_backbone_weights', 'load_backbone_weights']


def load_backbone_weights(
    module: InternViT,
    path: str | os.PathLike[str],
    allow_missing: Sequence[str] = (),
    candidates: Iterable[BackboneSpec] | None = None,
) -> LoadReport:
    """Loads a checkpoint into a backbone, or changes nothing and says what does not fit.

    Names and shapes are compared before values are read. Position embeddings of another square grid and patch kernels
    of another size are resampled. Values are cast to the dtype of the module, which keeps its devices; parameters on
    the meta device come to the CPU.

    Args:
        module: The backbone to fill; what it carries beside its trunk stays as it is.
        path: A file or folder in any dialect of `internvl_dense.backbones.dialects`.
        allow_missing: Glob patterns of keys that the file may lack; those get fresh initial values.
        candidates: Variants that the error may suggest; all registered ones if None.

    Raises:
        CheckpointMismatchError: Missing keys that are not allowed, unexpected keys or other shapes.
        UserError: No weights at `path`, or files that are damaged or unsafe to open.
    """
    view = native_view(open_weights(pathlib.Path(path)))
    expected = {key: shape for key, shape in shapes_of(module).items() if is_trunk_key(key)}
    report = _compared(view, module.spec, expected, allow_missing, candidates)
    with torch.no_grad():
        _initialise(module, report.missing)
        _stream(module, view, report)
    return report


def check_backbone_weights(
    spec: BackboneSpec, path: str | os.PathLike[str], allow_missing: Sequence[str] = ()
) -> LoadReport:
    """Compares names and shapes of a checkpoint with a variant, without a model and without reading values.

    Raises:
        CheckpointMismatchError, UserError: As `load_backbone_weights`.
    """
    return _compared(native_view(open_weights(pathlib.Path(path))), spec, expected_shapes(spec), allow_missing, None)


def _compared(
    view: NativeView, spec: BackboneSpec, expected: Mapping[str, Shape], allow_missing: Sequence[str],
    candidates: Iterable[BackboneSpec] | None,
) -> LoadReport:
    report = compare(view, spec, expected)
    if report.differences(allow_missing) or report.dropped:
        if candidates is None:
            candidates = [VARIANTS.get(name) for name in VARIANTS.list()]
        report.fits = tuple(find_fitting(view, candidates, allow_missing))
        _refuse_foreign_depth(report)
        report.raise_unless_clean(allow_missing)
    return report


def _refuse_foreign_depth(report: LoadReport) -> None:
    """Dropping blocks is for the variant's own file: one that another variant fits as it is was made for that one."""
    if report.dropped and report.fits and report.variant not in report.fits:
        report.faults += ('the blocks it has beyond the variant are dropped only from the file of this variant',)


def _stream(module: InternViT, view: NativeView, report: LoadReport) -> None:
    loaded = set(report.loaded)
    for key, tensor in view.files.read(key for key, slot in view.slots.items() if slot.key in loaded):
        slot = view.slots[key]
        if slot.key in report.resized:
            tensor = _resized(slot.key, tensor, module.spec)
        slot.view(_materialised(module, slot.key)).copy_(tensor)


def _resized(key: str, tensor: torch.Tensor, spec: BackboneSpec) -> torch.Tensor:
    if key == POSITION:
        slots, own = class_slots(tensor.shape[1]), int(spec.cls_token)
        assert slots is not None and slots >= own
        return resize_position(tensor.float()[:, slots - own:], own, (spec.grid_size, spec.grid_size))
    assert key == KERNEL
    return resize_patch_kernel(tensor.float(), spec.patch_size)


def _owner(module: nn.Module, key: str) -> tuple[nn.Module, str]:
    path, _, name = key.rpartition('.')
    return module.get_submodule(path), name


def _materialised(module: nn.Module, key: str) -> torch.Tensor:
    """The parameter of that key; one on the meta device is replaced by memory on the CPU first."""
    owner, name = _owner(module, key)
    parameter: nn.Parameter = getattr(owner, name)
    if parameter.is_meta:
        memory = torch.empty(parameter.shape, dtype=parameter.dtype, device='cpu')
        parameter = nn.Parameter(memory, requires_grad=parameter.requires_grad)
        setattr(owner, name, parameter)
    return parameter


def _initialise(module: InternViT, keys: Iterable[str]) -> None:
    """Gives keys that the file lacks their initial values: their memory may never have been written."""
    for key in keys:
        parameter = _materialised(module, key)
        owner, _ = _owner(module, key)
        if owner is module:
            nn.init.trunc_normal_(parameter, std=INIT_STD)
        else:
            init_layer(owner)  # touches its other parameters too; the file's values replace those afterwards
