from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from internvl_dense.data.image_files import image_facts, read_image
from internvl_dense.errors import UserError

RAMP = np.repeat(np.arange(0, 240, 4, dtype=np.uint8)[None, :, None], 40, axis=0).repeat(3, axis=2)


def save_jpeg(path: Path, orientation: int | None = None) -> None:
    exif = Image.Exif()
    if orientation:
        exif[0x0112] = orientation
    Image.fromarray(RAMP).save(path, quality=95, exif=exif)


def test_red_stays_red(tmp_path: Path) -> None:
    Image.new('RGB', (3, 2), (255, 0, 0)).save(tmp_path / 'a.png')
    np.testing.assert_array_equal(read_image(tmp_path / 'a.png'), np.full((2, 3, 3), (255, 0, 0)))


@pytest.mark.parametrize('orientation', range(1, 9))
def test_the_reported_size_is_that_of_the_image_read(tmp_path: Path, orientation: int) -> None:
    save_jpeg(tmp_path / 'a.jpg', orientation)
    facts = image_facts(tmp_path / 'a.jpg')
    height, width = read_image(tmp_path / 'a.jpg').shape[:2]
    assert facts.stored_size == (60, 40)
    assert facts.width_height == (width, height)


def test_non_ascii_names_can_be_read(tmp_path: Path) -> None:
    save_jpeg(tmp_path / 'größe 图.jpg')
    assert read_image(tmp_path / 'größe 图.jpg').shape == (40, 60, 3)


@pytest.mark.parametrize(
    ('array', 'suffix', 'mode', 'grey'),
    [
        (np.full((4, 4), 90, np.uint8), 'png', 'L', 90),
        (np.full((4, 4), 90 * 256, np.uint16), 'png', 'I;16', 90),
        (np.full((4, 4, 4), 90, np.uint8), 'png', 'RGBA', 90),
    ],
)
def test_every_pixel_format_becomes_8_bit_rgb(
    tmp_path: Path, array: np.ndarray, suffix: str, mode: str, grey: int
) -> None:
    path = tmp_path / f'a.{suffix}'
    cv2.imwrite(str(path), array)
    image = read_image(path)
    assert image.shape == (4, 4, 3) and image.dtype == np.uint8
    assert np.unique(image).tolist() == [grey]
    assert image_facts(path).mode == mode


def test_palette_images_give_colours_and_animations_count_frames(tmp_path: Path) -> None:
    frames = [Image.new('P', (4, 4), value) for value in (0, 1, 2)]
    for frame in frames:
        frame.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    frames[0].save(tmp_path / 'a.gif', save_all=True, append_images=frames[1:])
    frames[1].save(tmp_path / 'a.png')
    assert image_facts(tmp_path / 'a.gif').frames == 3
    assert read_image(tmp_path / 'a.png')[0, 0].tolist() == [40, 50, 60]


@pytest.mark.parametrize('kept', [0.5, 0.9, 0.99])
def test_an_image_cut_off_is_unreadable(tmp_path: Path, kept: float) -> None:
    path = tmp_path / 'a.jpg'
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    assert not image_facts(path).unreadable
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept)])
    assert 'truncated' in image_facts(path).unreadable


@pytest.mark.parametrize('content', [b'', b'<html></html>'])
def test_files_that_are_no_images(tmp_path: Path, content: bytes) -> None:
    (tmp_path / 'a.jpg').write_bytes(content)
    assert image_facts(tmp_path / 'a.jpg').unreadable
    with pytest.raises(UserError, match='cannot be read'):
        read_image(tmp_path / 'a.jpg')
    with pytest.raises(UserError, match='no such file'):
        read_image(tmp_path / 'b.jpg')
