"""Three validation images against the figures of the ADE20K development kit, in both conventions.

The kit's ids are 1..150 in labels and predictions, and label 0 does not count. A prediction of 0 on a labelled pixel is
wrong there without being any class's; no such pixel is in these files, and `ConfusionMatrix` would refuse it.
"""

from __future__ import annotations

import json
import pathlib

import numpy as np
import pytest
import torch
from PIL import Image

from internvl_dense.evaluation.confusion import ConfusionMatrix
from internvl_dense.evaluation.miou import Metrics, segmentation_metrics

NUM_CLASSES = 150
IGNORE = 255
TOLERANCE = 1e-6
KIND = ('predictions', 'predictions_noisy')


def read(path: pathlib.Path) -> torch.Tensor:
    return torch.from_numpy(np.array(Image.open(path), dtype=np.int64))


def devkit_matrix(folder: pathlib.Path, kind: str, name: str) -> ConfusionMatrix:
    label, pred = read(folder / 'annotations' / name), read(folder / kind / name)
    matrix = ConfusionMatrix(NUM_CLASSES, IGNORE)
    matrix.update(pred - 1, torch.where(label == 0, IGNORE, label - 1))
    return matrix


def metrics_of(matrix: ConfusionMatrix) -> Metrics:
    return segmentation_metrics(matrix.matrix, [str(index + 1) for index in range(NUM_CLASSES)])


@pytest.mark.parametrize('kind', KIND)
def test_equals_the_development_kit(shared_dir: pathlib.Path, kind: str):
    sample = shared_dir / 'data' / 'ade20k_sample'
    expected = json.loads((sample / 'expected_metrics.json').read_text())[kind]
    total = ConfusionMatrix(NUM_CLASSES, IGNORE)
    for name, accuracy in expected['per_image_pixel_accuracy'].items():
        image = devkit_matrix(sample / 'sampleData', kind, name)
        assert metrics_of(image)['aAcc'] == pytest.approx(accuracy, abs=TOLERANCE)
        total.merge(image)
    metrics = metrics_of(total)
    assert metrics['mIoU'] == pytest.approx(expected['mean_iou_present'], abs=TOLERANCE)
    assert metrics['mIoU_all_classes'] == pytest.approx(expected['mean_iou_150'], abs=TOLERANCE)
    assert metrics['aAcc'] == pytest.approx(expected['pixel_accuracy'], abs=TOLERANCE)
    iou = {name: scores['IoU'] for name, scores in metrics['per_class'].items() if scores['IoU'] is not None}
    assert len(iou) == expected['classes_present']
    assert iou == pytest.approx(expected['per_class_iou'], abs=TOLERANCE)
