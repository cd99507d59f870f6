from __future__ import annotations

import numpy as np
import pytest

from internvl_dense.data.prepare.contents import (
    check_ids,
    decode_label,
    encode_label,
    same_ids,
    take_image,
)
from internvl_dense.data.prepare.entries import Entry
from internvl_dense.data.prepare.folders import FolderSource
from internvl_dense.data.prepare.layouts import Task
from internvl_dense.errors import UserError
from tests.data.prepare import miniatures
from tests.data.prepare.miniatures import saved

IDS = np.arange(256, dtype=np.uint8).reshape(8, 32)


def test_labels_round_trip_and_are_compared_by_their_ids() -> None:
    data = encode_label(IDS)
    np.testing.assert_array_equal(decode_label(data), IDS)
    assert encode_label(IDS) == data
    assert same_ids(data, saved(IDS, compress_level=0))
    assert not same_ids(data, encode_label(IDS.T.copy())) and not same_ids(data, encode_label(IDS // 2))


@pytest.mark.parametrize(('array', 'message'), [
    (IDS.astype(np.uint16), '16-bit grey'),
    (IDS > 3, '1-bit grey'),
    (np.zeros((4, 4, 2), np.uint8), '8-bit grey with alpha'),
    (np.zeros((4, 4, 3), np.uint8), '8-bit RGB'),
    (np.zeros((4, 4, 4), np.uint8), '8-bit RGB with alpha'),
])
def test_labels_of_other_kinds(array: np.ndarray, message: str) -> None:
    with pytest.raises(UserError, match=f'^{message}; a label of this data set is 8-bit with one channel of ids'):
        decode_label(saved(array))


@pytest.mark.parametrize('length', [0, 4, 20, 25, 60, -1])
def test_cut_off_labels(length: int) -> None:
    with pytest.raises(UserError, match='no PNG file|cut off'):
        decode_label(encode_label(IDS)[:length])


def test_damaged_label_is_noticed() -> None:
    data = bytearray(encode_label(IDS))
    data[60] ^= 0xff
    with pytest.raises(UserError, match='damaged PNG file'):
        decode_label(bytes(data))


def test_ids_are_told_with_their_pixels() -> None:
    check_ids(IDS, range(256), 'rule')
    with pytest.raises(UserError, match=r'^id 3 \(1 pixels\), 5 \(1 pixels\); the rule$'):
        check_ids(IDS, set(range(256)) - {3, 5}, 'the rule')
    with pytest.raises(UserError, match=r'4 \(1 pixels\) and 251 more; the rule'):
        check_ids(IDS, (), 'the rule')


@pytest.fixture
def task(tmp_path) -> Task:
    return Task(None, 'a', Entry(FolderSource(tmp_path), 'a.jpg', 1))  # type: ignore[arg-type]


@pytest.mark.parametrize('data', [miniatures.jpeg(1), saved(np.zeros((4, 4, 3), np.uint8))], ids=['JPEG', 'PNG'])
def test_images_pass_unchanged(task: Task, data: bytes) -> None:
    assert take_image(data, task, None).data is data  # type: ignore[arg-type]


@pytest.mark.parametrize(('data', 'message'), [
    (b'', 'begins with nothing'), (b'GIF89a', 'begins with 47 49 46'), (miniatures.jpeg(1)[:-100], 'damaged JPEG'),
    (b'\xff\xd8\xff\xe0', 'damaged JPEG file .not an image')])
def test_no_images(task: Task, data: bytes, message: str) -> None:
    with pytest.raises(UserError, match=message):
        take_image(data, task, None)  # type: ignore[arg-type]
