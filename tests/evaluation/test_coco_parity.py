"""Our COCO numbers against pycocotools: 300 random data sets with everything that is special about COCO."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from internvl_dense.evaluation.coco_ap import coco_scores
from internvl_dense.evaluation.coco_truth import ground_truth
from tests.coco_cases import a_case

CASES = 300
GROUPS = 10  # tests that the cases are spread over
TOLERANCE = 1e-6

# pycocotools 2.0.11 with numpy 2.
pytestmark = pytest.mark.filterwarnings('ignore:__array__ implementation:DeprecationWarning')


def reference(content: dict[str, Any], detections: list[dict[str, Any]], kind: str, limits: list[int]) -> list[float]:
    """The twelve numbers of pycocotools, with areas of masks by the mask."""
    dropped = 'bbox' if kind == 'segm' else 'segmentation'
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = {**content, 'info': {}, 'annotations': [dict(item) for item in content['annotations']]}
        truth.createIndex()
        evaluator = COCOeval(truth, truth.loadRes([{k: v for k, v in item.items() if k != dropped}
                                                   for item in detections]), kind)
        evaluator.params.maxDets = limits
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    return evaluator.stats.tolist()


@pytest.mark.parametrize('group', range(GROUPS))
def test_all_twelve_numbers_are_those_of_pycocotools(group: int) -> None:
    told = set()
    for seed in range(group, CASES, GROUPS):
        content, detections = a_case(seed)
        if not detections:
            continue  # pycocotools cannot load an empty list
        limits = [100, 300, 1000] if seed % 50 == 0 else [1, 10, 100]
        truth = ground_truth(content, [category['name'] for category in content['categories']], 'a.json', masks=True)
        for kind in ('bbox', 'segm'):
            ours = coco_scores(truth, detections, kind, max_detections=limits)['summary']  # type: ignore[arg-type]
            theirs = reference(content, detections, kind, limits)
            assert list(ours.values()) == pytest.approx(theirs, abs=TOLERANCE), (seed, kind)
            told |= set(np.round(theirs, 6).tolist())
    assert len(told) > 50, 'cases that all score alike would prove nothing'


def test_the_cases_have_what_is_special_about_coco() -> None:
    cases = [a_case(seed) for seed in range(CASES)]
    annotations = [annotation for content, _ in cases for annotation in content['annotations']]
    assert sum(annotation['iscrowd'] for annotation in annotations) > 200
    assert sum(min(annotation['bbox'][:2]) < 0 for annotation in annotations) > 200
    empty = [image['id'] for content, _ in cases for image in content['images']
             if image['id'] not in {annotation['image_id'] for annotation in content['annotations']}]
    assert len(empty) > 50
    ties = [len(found) - len({item['score'] for item in found}) for _, found in cases]
    assert sum(count > 2 for count in ties) > 150
    assert sum(not found for _, found in cases) < 30
