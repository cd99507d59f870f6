"""mIoU for OpenMMLab runs: exact integer counts, kept on the device and equal on any number of processes."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine import dist
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log
from mmengine.registry import METRICS
from PIL import Image

from internvl_dense.errors import UserError, problems
from internvl_dense.evaluation.confusion import ConfusionMatrix
from internvl_dense.evaluation.miou import Metrics, segmentation_metrics
from internvl_dense.evaluation.table import per_class_table

NAMED_IMAGES = 5  # how many files a message lists


@METRICS.register_module()
class DenseIoUMetric(BaseMetric):
    """Takes the place of mmseg's `IoUMetric` in a config; `last_metrics` keeps the unrounded fractions.

    Returns percent, unrounded: `mIoU`, `mAcc`, `aAcc` and `mIoU_all_classes`, the mean of the ADE20K development kit,
    in which classes that do not occur count 0.

    With several processes a sampler repeats images at the end, so that all processes take equally many steps. Those
    repeats are left out here: process r of W gets the images at positions r, r + W, r + 2W, ... (mmengine's
    `DefaultSampler`), so whatever it gets beyond the size of the data set is a repeat, at most its last image. Any
    other distribution of images is refused.

    Args:
        ignore_index: Label id of pixels that do not count.
        iou_metrics: `mIoU`, alone or in a list.
        collect_device: As in mmengine, without effect: the counts are summed where they lie.
        output_dir: Folder for predictions as index PNG files named after the images. With `reduce_zero_label` ids are
            written with 1 added, as the labels have them.
        format_only: Writes predictions only, for images without labels.
        prefix: Put before the names of the results, as `prefix/mIoU`.
        collect_dir: As in mmengine, without effect.
        json_path: File for the unrounded fractions of each evaluation.
        keep_results: Passed by mmseg's test tool; without effect, what `output_dir` asks for is kept.

    Raises:
        UserError: Another metric than mIoU is asked for, or `format_only` without `output_dir`.
    """

    default_prefix = ''  # with None, mmengine warns that there is no prefix

    def __init__(
        self,
        ignore_index: int = 255,
        iou_metrics: str | Sequence[str] = ('mIoU',),
        collect_device: str = 'cpu',
        output_dir: str | None = None,
        format_only: bool = False,
        prefix: str | None = None,
        collect_dir: str | None = None,
        json_path: str | None = None,
        keep_results: bool = True,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix, collect_dir=collect_dir)
        asked = [iou_metrics] if isinstance(iou_metrics, str) else list(iou_metrics)
        if asked != ['mIoU']:
            raise UserError(f"iou_metrics = {asked}: DenseIoUMetric computes ['mIoU']; mmseg.IoUMetric has the others")
        if format_only and not output_dir:
            raise UserError('format_only=True writes predictions and nothing else: give output_dir, their folder')
        self.ignore_index = ignore_index
        self.output_dir = output_dir
        self.format_only = format_only
        self.json_path = json_path
        self.last_metrics: Metrics | None = None
        self._reset()

    def _reset(self) -> None:
        self._total: ConfusionMatrix | None = None
        self._latest: ConfusionMatrix | None = None  # the last image, apart because it may be a repeat
        self._outside: list[tuple[str, torch.Tensor]] = []  # per image the pixels whose ids are no class
        self._written: dict[str, str] = {}
        self.results.clear()

    @property
    def classes(self) -> Sequence[str]:
        """Names of the classes of the data set."""
        if not self.dataset_meta or not self.dataset_meta.get('classes'):
            raise UserError('DenseIoUMetric needs the class names of the data set: its metainfo has no classes')
        return self.dataset_meta['classes']

    def process(self, data_batch: Any, data_samples: Sequence[dict[str, Any]]) -> None:
        """Counts or writes the predictions of one batch.

        Args:
            data_batch: Not used.
            data_samples: For each image `pred_sem_seg` and `gt_sem_seg` with `data` of (1, H, W) or (H, W) ids, and
                `img_path`.

        Raises:
            UserError: An image has no label, or one of another size; in the first image also ids that are no class.
                Ids of later images are looked at when the evaluation ends, because looking waits for the device.
        """
        for sample in data_samples:
            pred = _id_map(sample['pred_sem_seg']['data'])
            if self.output_dir:
                self._write(self.output_dir, sample, pred)
            if not self.format_only:
                self._count(sample, pred)

    def _count(self, sample: dict[str, Any], pred: torch.Tensor) -> None:
        image = str(sample.get('img_path', f'image {len(self._outside)}'))
        if 'gt_sem_seg' not in sample:
            raise UserError(
                f'{image} has no label to compare with: load annotations in the test pipeline, '
                'or use format_only=True to write predictions alone'
            )
        counted = ConfusionMatrix(len(self.classes), self.ignore_index)
        try:
            counted.update(pred, _id_map(sample['gt_sem_seg']['data']))
            if not self._outside:
                counted.check()  # a wrong number of classes shows at once, not after the whole data set
        except UserError as error:
            raise UserError(f'{image}: {error}') from error
        if self._total is None:
            self._total = ConfusionMatrix(len(self.classes), self.ignore_index)
        if self._latest is not None:
            self._total.merge(self._latest)
        self._latest = counted
        self._outside.append((image, counted.num_outside))

    def _write(self, folder: str, sample: dict[str, Any], pred: torch.Tensor) -> None:
        image = str(sample['img_path'])
        name = os.path.splitext(os.path.basename(image))[0] + '.png'
        if self._written.setdefault(name, image) != image:
            raise UserError(f'{image} and {self._written[name]} would both be written as {name} in {folder}')
        ids = pred.cpu().numpy().astype(np.min_scalar_type(len(self.classes)))
        if sample.get('reduce_zero_label', False):
            ids = ids + ids.dtype.type(1)
        os.makedirs(folder, exist_ok=True)
        _replace(os.path.join(folder, name), lambda path: Image.fromarray(ids).save(path, format='PNG'))

    def evaluate(self, size: int) -> dict[str, float]:
        """Results of the whole data set, the same on every process; starts anew afterwards.

        Args:
            size: Number of images of the data set.

        Returns:
            Percent by name; empty with `format_only`.

        Raises:
            UserError: Images are missing or counted by another order than `DefaultSampler`'s, ids are no class, or no
                pixel was counted.
        """
        try:
            if self.format_only:
                print_log(f'predictions: {self.output_dir}', logger='current')
                return {}
            values = self.compute_metrics([self._collect(size)])
            return {f'{self.prefix}/{key}' if self.prefix else key: value for key, value in values.items()}
        finally:
            self._reset()

    def compute_metrics(self, results: list[ConfusionMatrix]) -> dict[str, float]:
        """Percent by name from confusion matrices that cover the data set; logs the table and writes `json_path`."""
        total = ConfusionMatrix(len(self.classes), self.ignore_index)
        for part in results:
            total.merge(part)
        metrics = segmentation_metrics(total.matrix, self.classes)
        self.last_metrics = metrics
        if dist.is_main_process():
            print_log(f'per class results:\n{per_class_table(metrics)}', logger='current')
            if self.json_path:
                _write_json(self.json_path, metrics)
        return {
            'mIoU': 100 * metrics['mIoU'],
            'mAcc': 100 * metrics['mAcc'],
            'aAcc': 100 * metrics['aAcc'],
            'mIoU_all_classes': 100 * metrics['mIoU_all_classes'],
        }

    def _collect(self, size: int) -> ConfusionMatrix:
        """Counts over all processes, without repeats."""
        rank, world_size = dist.get_dist_info()
        _require_shares(self._images_of_processes(rank, world_size), size)
        total = self._total
        if total is None:
            total = ConfusionMatrix(len(self.classes), self.ignore_index)
        is_repeat = len(self._outside) > _share(size, rank, world_size)
        if self._latest is not None and not is_repeat:
            total.merge(self._latest)
        dist.all_reduce(total.counts)
        try:
            total.check()
        except UserError as error:
            raise UserError(f'{error}\n{self._images_outside()}') from error
        return total

    def _images_of_processes(self, rank: int, world_size: int) -> list[int]:
        seen = torch.zeros(world_size, dtype=torch.int64)
        seen[rank] = len(self._outside)
        dist.all_reduce(seen)
        return seen.tolist()

    def _images_outside(self) -> str:
        """Names of images with ids that are no class. Every process must call it."""
        mine = [image for image, pixels in self._outside if int(pixels)]
        images = sorted({image for part in dist.all_gather_object(mine) for image in part})
        more = f' and {len(images) - NAMED_IMAGES} more' if len(images) > NAMED_IMAGES else ''
        return f'in {len(images)} images: {", ".join(images[:NAMED_IMAGES])}{more}'


def _id_map(data: torch.Tensor) -> torch.Tensor:
    """(H, W) of (1, H, W)."""
    return data[0] if data.ndim == 3 and data.shape[0] == 1 else data


def _share(size: int, rank: int, world_size: int) -> int:
    """How many of the positions 0..size - 1 a process has."""
    return len(range(rank, size, world_size))


def _require_shares(seen: Sequence[int], size: int) -> None:
    """Every process has counted its share, or as many images as the largest share."""
    world_size = len(seen)
    wrong = [
        f'process {rank} of {world_size} counted {count}, its share of {size} is {_share(size, rank, world_size)}'
        for rank, count in enumerate(seen)
        if count not in (_share(size, rank, world_size), _share(size, 0, world_size))
    ]
    if wrong:
        title = 'Images were left out or counted twice (DenseIoUMetric needs DefaultSampler and drop_last=False)'
        raise UserError(problems(title, wrong))


def _write_json(path: str, metrics: Metrics) -> None:
    os.makedirs(os.path.dirname(path) or '.', exist_ok=True)
    text = json.dumps(metrics, indent=1, ensure_ascii=False, allow_nan=False)

    def write(part: str) -> None:
        Path(part).write_text(text + '\n', encoding='utf-8')

    _replace(path, write)


def _replace(path: str, write: Callable[[str], None]) -> None:
    """Writes beside and renames: a reader never sees half a file, nor do two processes that write the same image."""
    part = f'{path}.{os.getpid()}.part'
    write(part)
    os.replace(part, path)
