"""Counts label against prediction, exactly and without waiting for the device."""

from __future__ import annotations

import torch

from internvl_dense.errors import UserError, problems

# Ids of 16-bit label files get a cell of their own when they are no class; anything beyond shares one.
MAX_ID = (1 << 16) - 1
ID_CELLS = MAX_ID + 3  # below zero, 0..MAX_ID, above

# Cell numbers are 32-bit, because narrow numbers make counting 1.6 times as fast.
MAX_CELLS = torch.iinfo(torch.int32).max

NAMED_IDS = 8  # how many ids a message lists


class ConfusionMatrix:
    """Pixel counts of every (label, prediction) pair as 64-bit integers, hence exact at any size.

    Counting stays on the device of the first `update` and never waits for it; reading `matrix` is the one wait. Ids
    that are no class are counted too, and make `check` and `matrix` raise: no pixel is dropped in silence.

    Args:
        num_classes: Classes have the ids 0..num_classes - 1.
        ignore_index: Label id of pixels that do not count, whatever is predicted there. It may be a class id.

    Raises:
        UserError: `num_classes` is not positive, or its square is too large to count.
    """

    def __init__(self, num_classes: int, ignore_index: int = 255) -> None:
        cells = num_classes**2 + 1 + 2 * ID_CELLS
        if num_classes < 1 or cells > MAX_CELLS:
            limit = int((MAX_CELLS - 2 * ID_CELLS) ** 0.5)
            raise UserError(f'num_classes = {num_classes}: a confusion matrix has 1 to {limit} classes')
        self.num_classes = num_classes
        self.ignore_index = ignore_index
        # Cells in this order: the matrix row by row, ignored pixels, label ids and predicted ids that are no class.
        # One flat tensor makes it one counting kernel an image, and one sum over processes.
        self.counts = torch.zeros(cells, dtype=torch.int64)
        self._empty = True

    def update(self, pred: torch.Tensor, label: torch.Tensor) -> None:
        """Counts one image or a batch.

        Args:
            pred: Predicted ids, (H, W) or (B, H, W), any integer type.
            label: Label ids of the same shape, any integer type, on any device.

        Raises:
            UserError: Shapes differ, there are not 2 or 3 axes, or the ids are not integers.
        """
        _require_id_maps(pred, label)
        cells = self._cells(pred, label.to(pred.device)).flatten()
        self._start_on(cells.device)
        one = torch.ones(1, dtype=torch.int64, device=self.counts.device)
        # Adds integers, so the order of addition cannot matter; `bincount` would wait for the device at every call.
        self.counts.index_add_(0, cells.to(self.counts.device), one.expand(cells.numel()))

    def merge(self, other: ConfusionMatrix) -> None:
        """Adds the counts of another matrix, for example that of another process or another part of a data set.

        Raises:
            UserError: The other one has another number of classes or another ignored id.
        """
        mine, theirs = (self.num_classes, self.ignore_index), (other.num_classes, other.ignore_index)
        if mine != theirs:
            raise UserError(
                'Confusion matrices add up only if they count the same: (num_classes, ignore_index) is '
                f'{mine} here and {theirs} there'
            )
        self._start_on(other.counts.device)
        self.counts += other.counts.to(self.counts.device)

    @property
    def num_outside(self) -> torch.Tensor:
        """Pixels so far whose label or prediction is no class: a scalar on the device, read without waiting."""
        return self.counts[self.num_classes**2 + 1 :].sum()

    def check(self) -> None:
        """Waits for the device and looks for ids that are no class.

        Raises:
            UserError: There are some; the message names the ids and their pixels. A pixel whose label and prediction
                are both wrong is listed with the labels.
        """
        if not int(self.num_outside):
            return
        of_labels, of_preds = self.counts[self.num_classes**2 + 1 :].cpu().split(ID_CELLS)
        found = []
        if of_labels.any():
            found.append(
                f'labels hold {_named(of_labels)}; correct the label files, or set ignore_index (now '
                f'{self.ignore_index}) or reduce_zero_label to what they follow'
            )
        if of_preds.any():
            found.append(
                f'predictions hold {_named(of_preds)}; the number of classes of the model and of the data set differ'
            )
        raise UserError(problems(f'Ids outside 0..{self.num_classes - 1}', found))

    @property
    def matrix(self) -> torch.Tensor:
        """(num_classes, num_classes) int64 on the CPU, a copy; row = label, column = prediction.

        Raises:
            UserError: Some pixel holds an id that is no class, see `check`.
        """
        self.check()
        inside = self.counts[: self.num_classes**2].reshape(self.num_classes, self.num_classes)
        return inside.to('cpu', copy=True)

    def _start_on(self, device: torch.device) -> None:
        """The first counts decide the device. Zeros are made there: copying them would wait for the device."""
        if self._empty and self.counts.device != device:
            self.counts = torch.zeros_like(self.counts, device=device)
        self._empty = False

    def _cells(self, pred: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        """Position in `counts` for each pixel, int32 of the same shape."""
        # Widen before comparing: 8-bit ids compared with -100 would be compared with 156.
        ignored = label.to(torch.int64) == self.ignore_index
        label_ids, pred_ids = _clamped(label), _clamped(pred)
        after_matrix = self.num_classes**2
        outside = after_matrix + 2  # the cell of id 0; that of ids below zero comes before it
        cells = label_ids * self.num_classes + pred_ids
        cells = torch.where(self._is_class(pred_ids), cells, pred_ids + (outside + ID_CELLS))
        cells = torch.where(self._is_class(label_ids), cells, label_ids + outside)
        return cells.masked_fill_(ignored, after_matrix)

    def _is_class(self, ids: torch.Tensor) -> torch.Tensor:
        return (ids >= 0) & (ids < self.num_classes)


def _clamped(ids: torch.Tensor) -> torch.Tensor:
    """Ids as int32; all below zero become -1, all too large for 16 bits MAX_ID + 1."""
    return ids.to(torch.int64).clamp(-1, MAX_ID + 1).to(torch.int32)


def _require_id_maps(pred: torch.Tensor, label: torch.Tensor) -> None:
    found = []
    if pred.shape != label.shape:
        found.append(f'the prediction is {tuple(pred.shape)} and the label {tuple(label.shape)}; resize the prediction')
    for name, ids in (('prediction', pred), ('label', label)):
        if ids.ndim not in (2, 3):
            found.append(f'the {name} is {tuple(ids.shape)}, not (H, W) or (B, H, W)')
        if ids.dtype.is_floating_point or ids.dtype.is_complex or ids.dtype == torch.bool:
            found.append(f'the {name} is {ids.dtype}; ids are integers, so take the argmax of scores first')
    if found:
        raise UserError(problems('A prediction and its label cannot be compared', found))


def _named(pixels: torch.Tensor) -> str:
    """For example `id 200 (9000 px), id 201 (3 px)`, from the counts of `ID_CELLS` ids."""
    cells = pixels.nonzero().flatten().tolist()
    names = {0: 'ids below 0', ID_CELLS - 1: f'ids above {MAX_ID}'}
    listed = [f'{names.get(cell, f"id {cell - 1}")} ({int(pixels[cell])} px)' for cell in cells[:NAMED_IDS]]
    more = cells[NAMED_IDS:]
    if more:
        listed.append(f'{len(more)} more ids ({int(pixels[more].sum())} px)')
    return ', '.join(listed)
