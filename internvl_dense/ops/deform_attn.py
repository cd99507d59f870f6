"""Choice of the kernel of multi-scale deformable attention.

A kernel samples `value` (B, L, H, D) at fractional places and adds the samples up with weights:

- L tokens are the row-major cells of V maps, one map after another; `shapes` lists their (height, width).
- `locations` (B, Lq, H, V, P, 2) are (x, y) in units of each map: (0, 0) is its top left corner, (1, 1) the bottom
  right one, and cell i of n has its centre at (i + 0.5) / n. Samples are bilinear; beyond the map they are zero.
- `weights` (B, Lq, H, V, P).

The result is (B, Lq, H * D) in the dtype of `value`. Half types are added up in fp32, and locations keep the precision
they come with. B batch, H heads, D channels of a head, Lq queries, V levels, P points.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Sequence
from typing import Protocol

import torch

from internvl_dense.errors import UserError, problems
from internvl_dense.registry import Registry

logger = logging.getLogger('internvl_dense')

Shapes = Sequence[tuple[int, int]]


class DeformAttn(Protocol):
    """The signature of every kernel."""

    def __call__(
        self, value: torch.Tensor, shapes: Shapes, locations: torch.Tensor, weights: torch.Tensor,
    ) -> torch.Tensor: ...


class DeformKernel:
    """A row of the table.

    Args:
        name: Name that users write.
        run: The kernel.
        why_not: Called without a tensor, or with `value`; returns the reason why the kernel is not usable, or None.
    """

    def __init__(self, name: str, run: DeformAttn, why_not: Callable[[torch.Tensor | None], str | None]) -> None:
        self.name = name
        self.why_not = why_not
        self._run = run

    def run(self, value: torch.Tensor, shapes: Shapes, locations: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """See the module.

        Raises:
            UserError: This kernel cannot take `value`; nothing falls back silently.
        """
        reason = self.why_not(value)
        if reason:
            others = [name for name in DEFORM_KERNELS.list() if DEFORM_KERNELS.get(name).why_not(value) is None]
            raise UserError(f'deform_attention={self.name!r} is not usable: {reason}. Usable for it: '
                            f'{", ".join(others)}.')
        _check_shapes(value, shapes, locations, weights)
        return self._run(value, shapes, locations, weights)


DEFORM_KERNELS: Registry[DeformKernel] = Registry('deformable attention kernel')
_FILES = {'triton': 'deform_attn_triton', 'grid_sample': 'deform_attn_grid_sample'}
_AUTO_ORDER = ('grid_sample',)  # triton was compared with it in triton's interpreter, not yet on a GPU: named only
_logged: set[str] = set()


def load_kernels() -> None:
    """Registers the kernels of this package; other packages add theirs to `DEFORM_KERNELS`."""
    for name, file in _FILES.items():
        if name not in DEFORM_KERNELS:
            DEFORM_KERNELS.register(name, importlib.import_module(f'internvl_dense.ops.{file}').KERNEL)


def usable_deform_kernels(value: torch.Tensor | None = None) -> list[str]:
    """Names of the kernels that can run on this machine, or on a given `value`."""
    load_kernels()
    return [name for name in DEFORM_KERNELS.list() if DEFORM_KERNELS.get(name).why_not(value) is None]


def get_deform_attn(name: str) -> DeformKernel:
    """Returns the kernel of that name; 'auto' takes the first one that can run each `value`, and logs which it was.

    Raises:
        UserError: No such kernel, or it is not usable on this machine.
    """
    load_kernels()
    if name == 'auto':
        return DeformKernel('auto', _run_first_usable, lambda value: None)
    kernel = DEFORM_KERNELS.get(name)
    reason = kernel.why_not(None)
    if reason:
        raise UserError(f'deform_attention={name!r} is not usable: {reason}. Usable here: '
                        f'{", ".join(usable_deform_kernels())}.')
    return kernel


def _run_first_usable(
    value: torch.Tensor, shapes: Shapes, locations: torch.Tensor, weights: torch.Tensor,
) -> torch.Tensor:
    name = next(name for name in _AUTO_ORDER if DEFORM_KERNELS.get(name).why_not(value) is None)
    if name not in _logged:
        _logged.add(name)
        logger.info("deform_attention='auto' chose %r on %s (usable: %s)", name, value.device.type,
                    ', '.join(usable_deform_kernels(value)))
    return DEFORM_KERNELS.get(name).run(value, shapes, locations, weights)


def _check_shapes(value: torch.Tensor, shapes: Shapes, locations: torch.Tensor, weights: torch.Tensor) -> None:
    cells = sum(height * width for height, width in shapes)
    batch, length, heads, _ = value.shape
    rules = [
        (length == cells, f'value has {length} tokens, the maps {list(shapes)} have {cells} cells'),
        (locations.shape[:1] == (batch,) and locations.shape[2:4] == (heads, len(shapes)),
         f'locations {tuple(locations.shape)} are not (batch {batch}, queries, heads {heads}, levels {len(shapes)}, '
         'points, 2)'),
        (locations.shape == (*weights.shape, 2),
         f'weights {tuple(weights.shape)} and locations {tuple(locations.shape)} do not belong together'),
    ]
    faults = [message for holds, message in rules if not holds]
    if faults:
        raise UserError(problems('deformable attention', faults))
