from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from internvl_dense.data.drawing import write_palette_png
from internvl_dense.data.label_files import count_ids, label_facts, read_label
from internvl_dense.errors import UserError

IDS = np.arange(256, dtype=np.uint8).reshape(8, 32)


def test_palette_png_gives_indices_where_opencv_gives_colours(tmp_path: Path) -> None:
    path = tmp_path / 'label.png'
    write_palette_png(path, IDS, [(255, 0, 0), (0, 255, 0)])
    assert cv2.imread(str(path), cv2.IMREAD_UNCHANGED).ndim == 3
    np.testing.assert_array_equal(read_label(path), IDS)
    assert label_facts(path).mode == 'P'


@pytest.mark.parametrize('bits', [1, 2, 4])
def test_small_palettes_are_unpacked(tmp_path: Path, bits: int) -> None:
    ids = IDS % 2**bits
    image = Image.fromarray(ids)
    image.putpalette([9] * 3 * 2**bits)
    image.save(tmp_path / 'label.png', bits=bits)
    np.testing.assert_array_equal(read_label(tmp_path / 'label.png'), ids)


def test_one_bit_images_are_zero_and_one(tmp_path: Path) -> None:
    Image.fromarray(IDS > 99).save(tmp_path / 'label.png')
    label = read_label(tmp_path / 'label.png')
    assert label.dtype == np.uint8
    np.testing.assert_array_equal(label, IDS > 99)


def test_16_bit_ids_are_kept_whole(tmp_path: Path) -> None:
    ids = IDS.astype(np.uint16) * 200
    cv2.imwrite(str(tmp_path / 'label.png'), ids)
    np.testing.assert_array_equal(read_label(tmp_path / 'label.png'), ids)
    assert label_facts(tmp_path / 'label.png').pixels == {int(value): 1 for value in ids.ravel()}


def test_32_bit_ids_fit_or_are_refused(tmp_path: Path) -> None:
    for value, fits in ((70000, False), (-1, False), (65535, True)):
        path = tmp_path / 'label.tif'
        Image.fromarray(np.full((2, 2), value, dtype=np.int32)).save(path)
        assert label_facts(path).pixels == {value: 4}
        if fits:
            assert read_label(path).dtype == np.uint16
        else:
            with pytest.raises(UserError, match=r'0\.\.65535'):
                read_label(path)


@pytest.mark.parametrize(
    ('shape', 'dtype', 'mode'),
    [((4, 4, 3), np.uint8, 'RGB'), ((4, 4, 2), np.uint8, 'LA'), ((4, 4), np.float32, 'F')],
)
def test_colours_and_fractions_are_refused(tmp_path: Path, shape: tuple[int, ...], dtype: type, mode: str) -> None:
    path = tmp_path / 'label.tif'
    Image.fromarray(np.zeros(shape, dtype)).save(path)
    facts = label_facts(path)
    assert (facts.mode, facts.is_index, facts.pixels) == (mode, False, {})
    with pytest.raises(UserError, match=f'this one is {mode}'):
        read_label(path)


@pytest.mark.parametrize(
    ('content', 'message'),
    [(b'', 'the file is empty'), (b'<html></html>', 'not an image'), (None, 'No such file')],
)
def test_unreadable_files_are_named(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / 'label.png'
    if content is not None:
        path.write_bytes(content)
    assert message in label_facts(path).unreadable
    with pytest.raises(UserError, match=str(path)):
        read_label(path)


@pytest.mark.parametrize('kept', [0.1, 0.5, 0.9])
def test_a_label_cut_off_is_unreadable(tmp_path: Path, kept: float) -> None:
    path = tmp_path / 'label.png'
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)).save(path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept)])
    assert label_facts(path).unreadable


def test_errors_that_decoders_do_not_announce_are_caught(tmp_path: Path) -> None:
    """A TIFF whose strip offset (tag 273) is a float (type 12, not 4) raises TypeError in Pillow."""
    path = tmp_path / 'label.tif'
    Image.fromarray(IDS).save(path)
    data = path.read_bytes()
    entry = (273).to_bytes(2, 'little') + (4).to_bytes(2, 'little')
    assert entry in data
    path.write_bytes(data.replace(entry, entry[:2] + (12).to_bytes(2, 'little'), 1))
    assert 'cannot be read' in label_facts(path).unreadable


@pytest.mark.filterwarnings('ignore::UserWarning')  # Pillow's remarks on damaged TIFF tags
def test_damage_at_random_never_escapes(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    path = tmp_path / 'label'
    for suffix, array in (('.png', IDS), ('.tif', IDS.astype(np.float32))):
        Image.fromarray(array).save(tmp_path / f'good{suffix}')
        good = bytearray((tmp_path / f'good{suffix}').read_bytes())
        for _ in range(150):
            bad = good.copy()
            for place in rng.integers(0, len(bad), 5):
                bad[place] = rng.integers(256)
            path.write_bytes(bytes(bad[: rng.integers(1, len(bad) + 1)]))
            label_facts(path)


def test_count_ids() -> None:
    assert count_ids(np.array([[3, 3], [0, 255]], dtype=np.uint8)) == {0: 1, 3: 2, 255: 1}
    assert count_ids(np.array([[3, 300]], dtype=np.uint16)) == {3: 1, 300: 1}
