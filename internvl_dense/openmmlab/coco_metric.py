"""COCO precision for OpenMMLab runs: computed fast, and equal on any number of processes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine import dist
from mmengine.evaluator import BaseMetric
from mmengine.fileio import get_text
from mmengine.logging import print_log
from mmengine.registry import METRICS

from internvl_dense.data.whole_files import write_json
from internvl_dense.errors import UserError, problems
from internvl_dense.evaluation.coco_ap import IOU_THRESHOLDS, CocoScores, Kind, coco_scores
from internvl_dense.evaluation.coco_table import coco_table
from internvl_dense.evaluation.coco_truth import GroundTruth, ground_truth

KINDS: tuple[Kind, ...] = ('bbox', 'segm')
MAIN = ('mAP', 'mAP_50', 'mAP_75', 'mAP_s', 'mAP_m', 'mAP_l')  # what mmdet reports unless metric_items says otherwise
NAMED = 5  # how many images a message lists
Result = dict[str, Any]


@METRICS.register_module()
class DenseCocoMetric(BaseMetric):
    """Takes the place of mmdet's `CocoMetric` in a config; the numbers are those of pycocotools, in a fraction of time.

    Returns unrounded fractions 0..1 (mmdet rounds to three digits) under mmdet's names: `coco/bbox_mAP`,
    `coco/bbox_mAP_50`, ..., `coco/segm_mAP_l`; -1 where no object counts. `last_metrics` keeps, by kind, all twelve
    numbers and under `per_class` those of each class.

    With several processes a sampler repeats images at the end. An image counts once, and all images must have come:
    the data set, the annotation file and what was predicted are the same images, or there is an error.

    Args:
        ann_file: COCO json of the data set; with `format_only` it may lack annotations.
        metric: 'bbox', 'segm' or a list of both.
        classwise: Returns the precision of each class too, as `bbox_NAME_precision`; the table is logged in any case.
        proposal_nums: Three limits of detections an image, see `coco_scores`; mmdet's are the default.
        iou_thrs: Thresholds of overlap; 0.5 to 0.95 by 0.05 when left out.
        metric_items: Names to return in place of the six of mmdet; recalls are `AR@N`, `AR_s@N`, `AR_m@N`, `AR_l@N`.
        format_only: Writes predictions only.
        outfile_prefix: Predictions are written to `PREFIX.bbox.json` and `PREFIX.segm.json`, for pycocotools' loadRes.
        backend_args: mmengine's file backend of `ann_file`.
        collect_device: How results travel between processes: 'cpu' by files, 'gpu' by the network.
        prefix: Put before the names of the results.
        collect_dir: As in mmengine.
        json_path: File for `last_metrics` of each evaluation.

    Raises:
        UserError: An unknown metric, no annotation file, or `format_only` without `outfile_prefix`.
    """

    default_prefix = 'coco'

    def __init__(
        self,
        ann_file: str | None = None,
        metric: str | Sequence[str] = 'bbox',
        classwise: bool = False,
        proposal_nums: Sequence[int] = (100, 300, 1000),
        iou_thrs: float | Sequence[float] | None = None,
        metric_items: Sequence[str] | None = None,
        format_only: bool = False,
        outfile_prefix: str | None = None,
        backend_args: dict[str, Any] | None = None,
        collect_device: str = 'cpu',
        prefix: str | None = None,
        collect_dir: str | None = None,
        json_path: str | None = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix, collect_dir=collect_dir)
        asked = [metric] if isinstance(metric, str) else list(metric)
        self.kinds = [kind for kind in KINDS if kind in asked]
        self.ann_file = ann_file or ''
        self.classwise = classwise
        self.proposal_nums = list(proposal_nums)
        self.iou_thrs = IOU_THRESHOLDS if iou_thrs is None else np.atleast_1d(iou_thrs).tolist()
        self.metric_items = MAIN if metric_items is None else tuple(metric_items)
        self.format_only = format_only
        self.outfile_prefix = outfile_prefix
        self.backend_args = backend_args
        self.json_path = json_path
        self.last_metrics: dict[str, dict[str, Any]] | None = None
        self._truth: GroundTruth | None = None
        faults = list(self._faults(asked))
        if faults:
            raise UserError(problems('DenseCocoMetric', faults))

    def _faults(self, asked: Sequence[str]) -> Iterator[str]:
        strange = [kind for kind in asked if kind not in KINDS]
        if strange or not asked:
            yield f"metric = {asked}: 'bbox', 'segm' or both; mmdet.CocoMetric has proposal and proposal_fast"
        if not self.ann_file:
            yield 'ann_file is missing: the COCO json of the data set that is evaluated'
        if self.format_only and not self.outfile_prefix:
            yield 'format_only=True writes predictions alone: give outfile_prefix, the beginning of their path'
        limits = self.proposal_nums
        if len(set(limits)) != 3 or min(limits) < 1:
            yield f'proposal_nums = {limits}: three different numbers of detections, from 1'
        else:
            known = [*MAIN, *(f'AR@{limit}' for limit in sorted(limits)),
                     *(f'AR_{area}@{max(limits)}' for area in 'sml')]
            unknown = [item for item in self.metric_items if item not in known]
            if unknown:
                yield f'metric_items {", ".join(unknown)} not known; there are {", ".join(known)}'

    @property
    def dataset_meta(self) -> dict[str, Any] | None:
        """What the data set says about itself; `classes` are the names by label."""
        meta: dict[str, Any] | None = self._dataset_meta
        return meta

    @dataset_meta.setter
    def dataset_meta(self, meta: dict[str, Any]) -> None:
        """Takes the classes and reads the annotation file, so that a fault shows before the first image."""
        self._dataset_meta = meta
        classes = (meta or {}).get('classes')
        if not classes:
            raise UserError('DenseCocoMetric needs the class names of the data set: its metainfo has no classes')
        content = self._read()
        if self.format_only and isinstance(content, dict):
            content.setdefault('annotations', [])
        self._truth = ground_truth(content, classes, self.ann_file, 'segm' in self.kinds)

    def _read(self) -> Any:
        try:
            return json.loads(get_text(self.ann_file, backend_args=self.backend_args))
        except OSError as error:
            raise UserError(f'ann_file {self.ann_file} cannot be read: {error.strerror or error}') from error
        except ValueError as error:
            raise UserError(f'ann_file {self.ann_file} is no json: {error}') from error

    @property
    def truth(self) -> GroundTruth:
        """Images and objects of the annotation file."""
        assert self._truth is not None, 'dataset_meta is set before the evaluation'
        return self._truth

    def process(self, data_batch: Any, data_samples: Sequence[Result]) -> None:
        """Keeps the detections of one batch.

        Args:
            data_batch: Not used.
            data_samples: For each image `img_id` and `pred_instances` with `bboxes` (N, 4) x0, y0, x1, y1 in pixels,
                `scores` (N,), `labels` (N,) and, for 'segm', `masks` (N, H, W) in the size of the original image, or
                RLE; also `mask_scores` where masks have scores of their own.

        Raises:
            UserError: There are no masks for 'segm', or a box or a score is not finite.
        """
        for sample in data_samples:
            found = sample['pred_instances']
            if 'segm' in self.kinds and 'masks' not in found:
                raise UserError(f"image {sample['img_id']}: the model predicts no masks, so metric='bbox' alone")
            kept = {key: _array(found[key]) for key in ('bboxes', 'scores', 'labels', 'mask_scores') if key in found}
            bad = [key for key, values in kept.items() if not np.isfinite(values).all()]
            if bad:
                raise UserError(f"image {sample['img_id']}: {' and '.join(bad)} of detections are NaN or infinite; the "
                                'weights are damaged or the run has diverged')
            if 'segm' in self.kinds:
                kept['masks'] = _encoded(found['masks'])
            self.results.append({'img_id': sample['img_id'], **kept})

    def evaluate(self, size: int) -> dict[str, float]:
        """Results of the whole data set, the same on every process; starts anew afterwards.

        Args:
            size: Number of images of the data set.

        Returns:
            Fractions by name; empty with `format_only`.

        Raises:
            UserError: On every process: images are missing or not in the annotation file.
        """
        parts = self._parts()
        self.results.clear()
        # The first process works, and the others must hear of a mistake that it finds: they would wait for ever.
        outcome: list[Any] = [self._outcome(parts, size) if dist.is_main_process() else None]
        dist.broadcast_object_list(outcome)
        if isinstance(outcome[0], str):
            raise UserError(outcome[0])
        values: dict[str, float] = outcome[0]
        return {f'{self.prefix}/{name}' if self.prefix else name: value for name, value in values.items()}

    def _parts(self) -> list[list[Result]]:
        """What each process has, on the first one."""
        world_size = dist.get_world_size()
        # One item a process: mmengine would cut longer lists to the length of the shortest.
        place = {'tmpdir': self.collect_dir} if self.collect_device == 'cpu' else {}
        return dist.collect_results([list(self.results)], world_size, self.collect_device, **place) or []

    def _outcome(self, parts: Sequence[Sequence[Result]], size: int) -> dict[str, float] | str:
        try:
            by_image: dict[int, Result] = {}
            for result in (result for part in parts for result in part):
                by_image.setdefault(result['img_id'], result)
            _require_all(by_image, self.truth, size, self.ann_file)
            return self.compute_metrics([by_image[image] for image in self.truth.images])
        except UserError as error:
            return str(error)

    def compute_metrics(self, results: Sequence[Result]) -> dict[str, float]:
        """Fractions by name from the detections of all images, each once; writes files and logs the tables."""
        values: dict[str, float] = {}
        metrics: dict[str, dict[str, Any]] = {}
        for kind in self.kinds:
            detections = [entry for result in results for entry in _entries(result, self.truth, kind)]
            if self.outfile_prefix:
                write_json(Path(f'{self.outfile_prefix}.{kind}.json'), detections)
                print_log(f'predictions: {self.outfile_prefix}.{kind}.json', logger='current')
            if self.format_only:
                continue
            scores = coco_scores(self.truth, detections, kind, self.iou_thrs, self.proposal_nums)
            print_log(f'{kind}, {len(results)} images, {len(detections)} detections:\n{coco_table(scores)}',
                      logger='current')
            metrics[kind] = {**scores['summary'], 'per_class': scores['per_class']}
            values |= self._named(kind, scores)
        self.last_metrics = metrics or None
        if self.json_path and metrics:
            write_json(Path(self.json_path), metrics, indent=1)
        return values

    def _named(self, kind: Kind, scores: CocoScores) -> dict[str, float]:
        values = {f'{kind}_{item}': scores['summary'][item] for item in self.metric_items}
        if self.classwise:
            values |= {f'{kind}_{name}_precision': float('nan') if row['mAP'] is None else row['mAP']
                       for name, row in scores['per_class'].items()}
        return values


def _array(values: Any) -> Any:
    return values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)


def _encoded(masks: Any) -> list[dict[str, Any]]:
    """Compressed RLE of (N, H, W) masks, with text that json takes."""
    from faster_coco_eval import mask

    codes = [mask.encode(np.asfortranarray(one, dtype=np.uint8)) for one in _array(masks)] if isinstance(
        masks, torch.Tensor | np.ndarray) else masks
    return [{'size': [int(side) for side in code['size']], 'counts': code['counts'].decode() if isinstance(
        code['counts'], bytes) else code['counts']} for code in codes]


def _entries(result: Result, truth: GroundTruth, kind: Kind) -> Iterator[dict[str, Any]]:
    """The detections of an image as entries of a COCO result list."""
    labels = result['labels'].tolist()
    if labels and max(labels) >= len(truth.category_ids):
        raise UserError(f'label {max(labels)} is predicted, the data set has {len(truth.category_ids)} classes: '
                        'num_classes of the heads is too large')
    scores = result['mask_scores' if kind == 'segm' and 'mask_scores' in result else 'scores'].tolist()
    for position, (box, label, score) in enumerate(zip(result['bboxes'].tolist(), labels, scores, strict=True)):
        entry = {'image_id': result['img_id'], 'category_id': truth.category_ids[label], 'score': score,
                 'bbox': [box[0], box[1], box[2] - box[0], box[3] - box[1]]}
        yield {**entry, 'segmentation': result['masks'][position]} if kind == 'segm' else entry


def _require_all(by_image: dict[int, Result], truth: GroundTruth, size: int, ann_file: str) -> None:
    """Predicted images, the data set and the annotation file are the same images."""
    faults = []
    if len(by_image) != size:
        faults.append(f'{len(by_image)} of the {size} images of the data set were predicted; use DefaultSampler and '
                      'drop_last=False')
    missing, strange = truth.images.keys() - by_image.keys(), by_image.keys() - truth.images.keys()
    if missing:
        faults.append(f'{len(missing)} images of {ann_file} were not predicted, such as {_named_images(missing)}; '
                      'their objects would count as missed')
    if strange:
        faults.append(f'{len(strange)} predicted images are not in {ann_file}, such as {_named_images(strange)}')
    if faults:
        title = 'images that are evaluated, those of the data set and of ann_file are not the same'
        raise UserError(problems(title, faults))


def _named_images(images: set[int]) -> str:
    return f'id {", ".join(map(str, sorted(images)[:NAMED]))}'
