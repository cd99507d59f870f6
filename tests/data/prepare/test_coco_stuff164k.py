from __future__ import annotations

import ast
import importlib.util
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from internvl_dense.data.prepare.coco_stuff164k import NUM_CLASSES, convert_label, lookup_table, train_ids
from internvl_dense.data.prepare.contents import decode_label
from internvl_dense.data.prepare.layouts import Content
from internvl_dense.errors import UserError
from tests.data.prepare.miniatures import saved

# labels.md of github.com/nightrome/cocostuff, numbered from 1: the first and last class, and those that follow a
# removed one; spelled as mmsegmentation lists them.
LABELS = {
    1: 'person', 11: 'fire hydrant', 13: 'stop sign', 25: 'giraffe', 27: 'backpack', 28: 'umbrella', 31: 'handbag',
    44: 'bottle', 46: 'wine glass', 65: 'bed', 67: 'dining table', 70: 'toilet', 72: 'tv', 82: 'refrigerator',
    84: 'book', 90: 'toothbrush', 92: 'banner', 93: 'blanket', 106: 'clouds', 112: 'door-stuff', 181: 'window-other',
    182: 'wood'}


def installed_mmseg() -> Path:
    spec = importlib.util.find_spec('mmseg')
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent


def assigned(path: Path, name: str) -> object:
    """A constant of a module, without running it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Assign) and getattr(node.targets[0], 'id', '') == name:
            call = node.value
            if isinstance(call, ast.Call):
                return {keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords}
            return ast.literal_eval(call)
    raise AssertionError(name)


def convert(ids: np.ndarray) -> np.ndarray:
    content = convert_label(saved(ids), None, None)  # type: ignore[arg-type]
    assert isinstance(content, Content)
    return decode_label(content.data)


def test_the_map_is_one_to_one_onto_171_classes_and_keeps_the_order() -> None:
    ids = train_ids()
    assert NUM_CLASSES == 171 == len(ids)
    assert sorted(ids.values()) == list(range(171))
    assert list(ids) == sorted(ids) and list(ids.values()) == sorted(ids.values())
    assert set(range(182)) - set(ids) == {11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90}


def test_all_171_ids_are_those_of_the_framework_that_trains() -> None:
    published = assigned(installed_mmseg() / '.mim/tools/dataset_converters/coco_stuff164k.py', 'clsID_to_trID')
    assert isinstance(published, dict)
    assert {**train_ids(), 255: 255} == published


@pytest.mark.parametrize('number', LABELS)
def test_names_of_the_classes(number: int) -> None:
    meta = assigned(installed_mmseg() / 'datasets/coco_stuff.py', 'METAINFO')
    assert isinstance(meta, dict) and len(meta['classes']) == 171
    assert meta['classes'][train_ids()[number - 1]] == LABELS[number]


def test_picture_of_every_class_round_trips() -> None:
    ids = train_ids()
    raw = np.array([*ids, 255, *ids, 255], dtype=np.uint8).reshape(2, 172)
    converted = convert(raw)
    np.testing.assert_array_equal(converted[0], [*range(171), 255])
    back = {train: raw_id for raw_id, train in ids.items()} | {255: 255}
    np.testing.assert_array_equal(np.vectorize(back.get)(converted), raw)


def test_palette_labels_are_read_as_indices() -> None:
    image = Image.fromarray(np.array([[181, 0]], dtype=np.uint8))
    image.putpalette([255 - index % 256 for index in range(768)])
    buffer = io.BytesIO()
    image.save(buffer, format='PNG')
    data = convert_label(buffer.getvalue(), None, None).data  # type: ignore[arg-type]
    assert image.mode == 'P'
    np.testing.assert_array_equal(decode_label(data), [[170, 0]])


@pytest.mark.parametrize('number', [11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90, *range(182, 255)])
def test_every_other_id_is_refused(number: int) -> None:
    assert lookup_table()[number] == 255
    with pytest.raises(UserError, match=rf'id {number} \(2 pixels\); raw ids are 0\.\.181 without'):
        convert(np.array([[number, 0, number]], dtype=np.uint8))
