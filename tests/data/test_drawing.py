from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from internvl_dense.data.drawing import colourise, contact_sheet, legend, overlay, with_legend, write_palette_png
from internvl_dense.errors import UserError

PALETTE = [(200, 0, 0), (0, 100, 0), (0, 0, 50)]
IDS = np.array([[0, 1, 2, 255]], dtype=np.uint8)


def test_a_palette_png_gives_the_ids_back_and_shows_colours(tmp_path: Path) -> None:
    ids = np.arange(256, dtype=np.uint8).reshape(16, 16)
    write_palette_png(tmp_path / 'a.png', ids, PALETTE)
    with Image.open(tmp_path / 'a.png') as image:
        assert image.mode == 'P'
        np.testing.assert_array_equal(np.asarray(image), ids)
        colours = np.asarray(image.convert('RGB'))
    assert colours[0, 1].tolist() == [0, 100, 0]
    assert colours[0, 3].tolist() == [0, 0, 0]
    assert colours[15, 15].tolist() == [255, 255, 255]


def test_a_palette_png_refuses_what_it_cannot_hold(tmp_path: Path) -> None:
    with pytest.raises(UserError, match='uint8'):
        write_palette_png(tmp_path / 'a.png', IDS.astype(np.int64), PALETTE)
    with pytest.raises(UserError, match='256 colours'):
        write_palette_png(tmp_path / 'a.png', IDS, [(0, 0, 0)] * 256)


def test_overlay_mixes_by_opacity_and_leaves_the_ignored_area() -> None:
    image = np.full((1, 4, 3), 100, dtype=np.uint8)
    mixed = overlay(image, IDS, PALETTE, opacity=0.25, ignore=255)
    assert mixed.dtype == np.uint8
    assert mixed[0].tolist() == [[125, 75, 75], [75, 100, 75], [75, 75, 88], [100, 100, 100]]
    assert image.max() == 100
    np.testing.assert_array_equal(overlay(image, IDS, PALETTE, 0, 255), image)
    np.testing.assert_array_equal(overlay(image, IDS, PALETTE, 1, 255)[0, :3], PALETTE)


def test_overlay_refuses_wrong_input() -> None:
    image = np.zeros((1, 4, 3), dtype=np.uint8)
    with pytest.raises(UserError, match=r'ids \[255\] have no colour'):
        overlay(image, IDS, PALETTE)
    with pytest.raises(UserError, match='one size'):
        overlay(image[:, :2], IDS, PALETTE, ignore=255)
    with pytest.raises(UserError, match='opacity = 50'):
        overlay(image, IDS, PALETTE, 50, ignore=255)


def test_colourise_paints_the_ignored_area_as_asked() -> None:
    assert colourise(IDS, PALETTE, 255, (1, 2, 3))[0].tolist() == [[200, 0, 0], [0, 100, 0], [0, 0, 50], [1, 2, 3]]
    assert colourise(IDS[:, :3].astype(np.int64), PALETTE).shape == (1, 3, 3)


def test_a_legend_holds_every_colour_and_wraps() -> None:
    names = ['horizontal stripes', 'vertical stripes', 'dots']
    wide, narrow = legend(names, PALETTE, 500), legend(names, PALETTE, 140)
    assert wide.shape[1] == 500 and narrow.shape[1] == 140
    assert narrow.shape[0] > wide.shape[0]
    for strip in (wide, narrow):
        colours = {tuple(colour) for colour in strip.reshape(-1, 3).tolist()}
        assert set(PALETTE) <= colours
    picture = np.zeros((30, 140, 3), dtype=np.uint8)
    assert with_legend(picture, names, PALETTE).shape == (30 + narrow.shape[0], 140, 3)


def test_a_contact_sheet_scales_and_places_every_picture() -> None:
    rows = [[np.full((10, 20, 3), 60 * (2 * row + column), dtype=np.uint8) for column in range(2)] for row in range(2)]
    sheet = contact_sheet(rows, ['image', 'truth'], height_px=40)
    assert sheet.shape[1] == 2 * 80 + 3 * 6
    for row in range(2):
        for column in range(2):
            centre = sheet[25 + row * 46 + 20, 6 + column * 86 + 40]
            assert centre.tolist() == [60 * (2 * row + column)] * 3
    with pytest.raises(UserError, match='2 pictures a row'):
        contact_sheet([rows[0], rows[1][:1]], ['image', 'truth'])
    with pytest.raises(UserError, match='contact sheet'):
        contact_sheet([], ['image'])
