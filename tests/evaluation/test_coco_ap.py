from __future__ import annotations

from typing import Any

import pytest

from internvl_dense.errors import UserError
from internvl_dense.evaluation.coco_ap import coco_scores
from internvl_dense.evaluation.coco_table import coco_table
from internvl_dense.evaluation.coco_truth import GroundTruth, ground_truth

WHOLE = {'size': [60, 80], 'counts': [0, 4800]}


def content(**changes: Any) -> dict[str, Any]:
    """Two images, classes whose ids do not rise, one object of each but the last."""
    return {
        'images': [{'id': 7, 'width': 80, 'height': 60}, {'id': 3, 'width': 80, 'height': 60}],
        'annotations': [
            {'id': 0, 'image_id': 7, 'category_id': 9, 'bbox': [0, 0, 20, 20], 'area': 400, 'segmentation': WHOLE},
            {'id': 1, 'image_id': 3, 'category_id': 2, 'bbox': [5, 5, 40, 40], 'area': 1600, 'segmentation': WHOLE},
        ],
        'categories': [{'id': 9, 'name': 'tram'}, {'id': 2, 'name': 'kite'}, {'id': 5, 'name': 'boat'}],
        **changes,
    }


def truth(**changes: Any) -> GroundTruth:
    return ground_truth(content(**changes), ('tram', 'kite', 'boat'), 'a.json')


def right(image: int, category: int, box: list[float], score: float = 0.9) -> dict[str, Any]:
    return {'image_id': image, 'category_id': category, 'bbox': box, 'score': score}


def test_classes_keep_their_names_whatever_the_order_of_ids() -> None:
    scores = coco_scores(truth(), [right(3, 2, [5, 5, 40, 40])])
    assert scores['per_class']['kite']['mAP'] == pytest.approx(1)
    assert scores['per_class']['kite']['mAP_m'] == pytest.approx(1)
    assert scores['per_class']['tram'] == {
        'mAP': 0, 'mAP_50': 0, 'mAP_75': 0, 'mAP_s': 0, 'mAP_m': None, 'mAP_l': None}
    assert set(scores['per_class']['boat'].values()) == {None}
    assert scores['summary']['mAP'] == pytest.approx(0.5)
    assert scores['summary']['mAP_l'] == -1


def test_an_object_with_the_id_0_is_found_like_any_other() -> None:
    assert coco_scores(truth(), [right(7, 9, [0, 0, 20, 20])])['per_class']['tram']['mAP'] == pytest.approx(1)


def test_no_detection_at_all_is_a_score_of_0() -> None:
    summary = coco_scores(truth(), [])['summary']
    assert [summary[key] for key in ('mAP', 'mAP_s', 'AR@100')] == [0, 0, 0]


def test_thresholds_of_ones_own() -> None:
    box = right(3, 2, [5, 5, 40, 25])  # overlap 0.625
    assert coco_scores(truth(), [box], iou_thresholds=[0.6])['per_class']['kite']['mAP'] == pytest.approx(1)
    scores = coco_scores(truth(), [box], iou_thresholds=[0.65])
    assert scores['per_class']['kite']['mAP'] == 0
    assert scores['summary']['mAP_50'] == -1


def test_detections_and_entries_are_left_as_they_are() -> None:
    known, found = truth(), [right(3, 2, [5, 5, 40, 40])]
    coco_scores(known, found)
    assert found == [right(3, 2, [5, 5, 40, 40])]
    assert 'rle' not in known.annotations[0] and known == truth()


def test_masks_of_another_size_are_refused() -> None:
    turned = {'image_id': 3, 'category_id': 2, 'score': 1.0, 'segmentation': {'size': [80, 60], 'counts': 'PPg4'}}
    with pytest.raises(UserError, match=r'image 3 .*masks are 60x80, the annotation file says 80x60'):
        coco_scores(truth(), [turned], 'segm')


def test_limits_and_images_that_make_no_sense() -> None:
    with pytest.raises(UserError, match='three different numbers'):
        coco_scores(truth(), [], max_detections=[1, 100, 100])
    with pytest.raises(UserError, match='1 images that are not in the data set, such as id 4'):
        coco_scores(truth(), [right(4, 2, [0, 0, 1, 1])])


def test_the_table_has_a_line_for_each_class_and_the_means() -> None:
    lines = coco_table(coco_scores(truth(), [right(3, 2, [5, 5, 40, 40])])).splitlines()
    assert lines[0].split() == ['class', 'AP', 'AP50', 'AP75', 'APs', 'APm', 'APl']
    assert lines[3].split() == ['kite', '100.00', '100.00', '100.00', 'absent', '100.00', 'absent']
    assert lines[4].split() == ['boat', *['absent'] * 6]
    assert lines[6].split()[:2] == ['mean', '50.00']
    assert lines[7] == ('AR@1 50.00, AR@10 50.00, AR@100 50.00, AR_s@100 0.00, AR_m@100 100.00, AR_l@100 absent')


@pytest.mark.parametrize(
    ('changes', 'classes', 'message'),
    [
        ({'images': None}, ('tram', 'kite', 'boat'), 'is no COCO annotation file'),
        ({}, ('tram', 'kite', 'bus'), 'it lacks bus'),
        ({}, ('kite', 'tram', 'boat'), 'their order there is tram, kite, boat, here kite, tram, boat'),
        ({'categories': [{'id': i, 'name': 'tram'} for i in (1, 2)]}, ('tram',), 'more than once'),
        ({'annotations': [{'id': 4, 'image_id': 8, 'category_id': 2, 'bbox': [0, 0, 1, 1], 'area': 1,
                           'segmentation': WHOLE}]}, ('tram', 'kite', 'boat'), 'belong to no image, such as id 4'),
        ({'annotations': [{'id': 4, 'image_id': 7, 'category_id': 2, 'bbox': [0, 0, 1, 1]}]}, ('tram', 'kite', 'boat'),
         r'(?s)1 of 1 annotations have no area, such as id 4.*no segmentation'),
    ],
)
def test_annotation_files_that_cannot_be_used(changes: dict[str, Any], classes: tuple[str, ...], message: str) -> None:
    with pytest.raises(UserError, match=message):
        ground_truth(content(**changes), classes, 'a.json', masks=True)


def test_categories_that_are_no_class_are_left_out() -> None:
    known = ground_truth(content(), ('tram', 'boat'), 'a.json')
    assert known.category_ids == (9, 5)
    assert [annotation['category_id'] for annotation in known.annotations] == [9]
