"""Average precision and recall as COCO defines them, computed by faster-coco-eval.

The numbers are those of pycocotools: ties in scores keep the order of the detections, crowds take any number of
detections, and an area counts by the annotation (of a detection by its box or mask).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypedDict

import numpy as np
import numpy.typing as npt

from internvl_dense.errors import UserError
from internvl_dense.evaluation.coco_truth import GroundTruth

Kind = Literal['bbox', 'segm']
Detection = Mapping[str, Any]
Table = npt.NDArray[np.float64]

# cocodataset.org/#detection-eval: ten thresholds of overlap, at most 100 detections an image.
IOU_THRESHOLDS = tuple(np.linspace(0.5, 0.95, 10).tolist())
MAX_DETECTIONS = (1, 10, 100)
MAIN_DETECTIONS = 100
AREAS = {'': 0, '_s': 1, '_m': 2, '_l': 3}  # ending of a name -> position in the evaluator's table
NOTHING = -1.0  # what COCO reports where no object counts


class CocoScores(TypedDict):
    """Unrounded fractions 0..1; `summary` holds -1 and `per_class` None where no object counts.

    `summary` has the twelve numbers of COCO: `mAP`, `mAP_50`, `mAP_75`, `mAP_s`, `mAP_m`, `mAP_l`, the recalls `AR@N`
    for each of three numbers of detections, `AR_s@N`, `AR_m@N` and `AR_l@N` for the largest. `per_class` has the first
    six of each class.
    """

    summary: dict[str, float]
    per_class: dict[str, dict[str, float | None]]


def coco_scores(
    truth: GroundTruth,
    detections: Sequence[Detection],
    kind: Kind = 'bbox',
    iou_thresholds: Sequence[float] = IOU_THRESHOLDS,
    max_detections: Sequence[int] = MAX_DETECTIONS,
) -> CocoScores:
    """Compares detections with the objects of all images of a data set.

    Args:
        truth: Images and objects.
        detections: Entries of a COCO result list: image_id, category_id, score and, for boxes, `bbox` (x, y, width,
            height in pixels), for masks `segmentation` (RLE). Every image counts, also one without detections.
        kind: 'bbox' compares boxes, 'segm' masks.
        iou_thresholds: Overlaps that make a match, rising.
        max_detections: Three limits of detections an image and class, the best by score. As in pycocotools, `mAP` uses
            100 where that is one of them, and every other precision the largest.

    Raises:
        UserError: Not three limits, a detection of an image that is not in the data set, or a mask of another size
            than its image, which would match nothing.
    """
    if len(set(max_detections)) != 3 or min(max_detections) < 1:
        raise UserError(f'max_detections = {list(max_detections)}: three different numbers of detections, from 1')
    limits, thresholds = sorted(max_detections), np.asarray(iou_thresholds, dtype=np.float64)
    strange = sorted({found['image_id'] for found in detections} - set(truth.images))
    if strange:
        raise UserError(f'detections of {len(strange)} images that are not in the data set, such as id {strange[0]}')
    if kind == 'segm':
        _require_sizes(truth, detections)
    precision, recall = _evaluate(truth, detections, kind, thresholds, limits)
    return {
        'summary': {**_precisions(precision, thresholds, limits), **_recalls(recall, limits)},
        'per_class': {
            name: {key: None if value == NOTHING else value for key, value in _precisions(
                precision[:, :, [position]], thresholds, limits).items()}
            for name, position in zip(truth.classes, _positions(truth.category_ids), strict=True)},
    }


def _require_sizes(truth: GroundTruth, detections: Sequence[Detection]) -> None:
    for found in detections:
        image, size = truth.images[found['image_id']], tuple(found['segmentation']['size'])
        if size != (image['height'], image['width']):
            raise UserError(
                f'image {image["id"]} ({image.get("file_name", "no file name")}): its masks are {size[1]}x{size[0]}, '
                f'the annotation file says {image["width"]}x{image["height"]} (width x height). Was the picture turned '
                'by its EXIF orientation or resized after it was annotated?')


def _evaluate(
    truth: GroundTruth, detections: Sequence[Detection], kind: Kind, thresholds: Table, limits: Sequence[int]
) -> tuple[Table, Table]:
    """Precision (threshold, recall, class, area, limit) and recall (threshold, class, area, limit); classes by id."""
    from faster_coco_eval import COCO, COCOeval_faster

    # The evaluator writes into the entries it is given.
    objects = COCO({
        'images': [dict(image) for image in truth.images.values()],
        'annotations': [dict(annotation) for annotation in truth.annotations],
        'categories': [{'id': category, 'name': name}
                       for category, name in zip(truth.category_ids, truth.classes, strict=True)],
    })
    # With both entries an area would be that of the box, for masks as well.
    dropped = 'bbox' if kind == 'segm' else 'segmentation'
    found = objects.loadRes([{key: found[key] for key in found if key != dropped} for found in detections])
    evaluator = COCOeval_faster(objects, found, iouType=kind)
    evaluator.params.catIds = list(truth.category_ids)
    evaluator.params.imgIds = list(truth.images)
    evaluator.params.iouThrs = thresholds
    evaluator.params.maxDets = list(limits)
    evaluator.evaluate()
    evaluator.accumulate()
    return np.asarray(evaluator.eval['precision']), np.asarray(evaluator.eval['recall'])


def _positions(category_ids: Sequence[int]) -> list[int]:
    """Where the evaluator, which sorts ids, keeps each class."""
    order = sorted(category_ids)
    return [order.index(category) for category in category_ids]


def _precisions(precision: Table, thresholds: Table, limits: Sequence[int]) -> dict[str, float]:
    main = limits.index(MAIN_DETECTIONS) if MAIN_DETECTIONS in limits else -1
    return {
        'mAP': _mean(precision[:, :, :, 0, main]),
        'mAP_50': _mean(precision[thresholds == 0.5, :, :, 0, -1]),
        'mAP_75': _mean(precision[thresholds == 0.75, :, :, 0, -1]),
        **{f'mAP{ending}': _mean(precision[:, :, :, area, -1]) for ending, area in AREAS.items() if ending},
    }


def _recalls(recall: Table, limits: Sequence[int]) -> dict[str, float]:
    every = {f'AR@{limit}': _mean(recall[:, :, 0, index]) for index, limit in enumerate(limits)}
    by_area = {f'AR{ending}@{limits[-1]}': _mean(recall[:, :, area, -1]) for ending, area in AREAS.items() if ending}
    return {**every, **by_area}


def _mean(values: Table) -> float:
    counted = values[values > NOTHING]
    return float(counted.mean()) if counted.size else NOTHING
