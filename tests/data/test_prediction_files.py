from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from internvl_dense.data.label_policy import LabelPolicy
from internvl_dense.data.prediction_files import MIN_LEGEND_PX, PredictionFolder, draw_prediction
from internvl_dense.errors import UserError

COLOURS = ((10, 20, 30), (200, 0, 0), (0, 200, 0))
POLICY = LabelPolicy(('sky', 'road', 'tree'), COLOURS)
IDS = np.array([[0, 1, 1, 2]] * 3, dtype=np.uint8)
IMAGE = np.full((3, 4, 3), 100, dtype=np.uint8)
SETTINGS = {'checkpoint_sha256': 'abc', 'model': {'type': 'A', 'sizes': [(1, 2)]}, 'opacity': 0.5}


@pytest.fixture
def folder(tmp_path: Path) -> PredictionFolder:
    folder = PredictionFolder(tmp_path / 'out', POLICY)
    folder.open(SETTINGS)
    return folder


def reopen(folder: PredictionFolder, overwrite: bool = False, **changes: object) -> None:
    PredictionFolder(folder.folder, POLICY).open({**SETTINGS, **changes}, overwrite=overwrite)


def test_a_mask_holds_ids_and_shows_colours(folder: PredictionFolder):
    folder.save('a/b.c', IMAGE, IDS)
    mask = Image.open(folder.folder / 'masks/a/b.c.png')
    assert mask.mode == 'P'
    np.testing.assert_array_equal(np.asarray(mask), IDS)
    np.testing.assert_array_equal(np.asarray(mask.convert('RGB')), np.array(COLOURS, dtype=np.uint8)[IDS])
    assert (folder.folder / 'overlays/a/b.c.jpg').is_file()


def test_a_mask_holds_the_ids_of_label_files(tmp_path: Path):
    folder = PredictionFolder(tmp_path, LabelPolicy(POLICY.classes, COLOURS, reduce_zero_label=True))
    folder.save('x', IMAGE, IDS)
    mask = Image.open(tmp_path / 'masks/x.png')
    np.testing.assert_array_equal(np.asarray(mask), IDS + 1)
    np.testing.assert_array_equal(np.asarray(mask.convert('RGB')), np.array(COLOURS, dtype=np.uint8)[IDS])
    np.testing.assert_array_equal(folder.policy.train_ids(np.asarray(mask)), IDS)


def test_an_overlay_mixes_image_and_colours_above_a_legend_of_what_occurs():
    drawn = draw_prediction(IMAGE, np.minimum(IDS, 1), POLICY, opacity=0.25)
    np.testing.assert_array_equal(drawn[0, 0], [78, 80, 82])
    np.testing.assert_array_equal(drawn[0, 1], [125, 75, 75])
    assert drawn.shape[1] == MIN_LEGEND_PX and drawn.shape[0] > 3
    assert (drawn[:3, 4:] == 255).all()
    legend = {tuple(pixel) for row in drawn[3:].tolist() for pixel in row}
    assert {COLOURS[0], COLOURS[1]} <= legend
    assert COLOURS[2] not in legend


def test_done_needs_both_files_under_their_final_names(folder: PredictionFolder):
    folder.save('x', IMAGE, IDS)
    assert folder.is_done('x')
    mask, picture = folder.paths('x')
    picture.rename(f'{picture}.part')
    assert not folder.is_done('x')
    folder.save('x', IMAGE, IDS)
    assert [path.name for path in sorted(folder.folder.rglob('x*'))] == ['x.png', 'x.jpg']


def test_a_failed_write_leaves_no_final_name(folder: PredictionFolder, monkeypatch: pytest.MonkeyPatch):
    import internvl_dense.data.prediction_files as module

    def half(path: Path, *_: object) -> None:
        path.write_bytes(b'half')
        raise OSError('disk full')

    monkeypatch.setattr(module, 'write_palette_png', half)
    with pytest.raises(OSError, match='disk full'):
        folder.save('x', IMAGE, IDS)
    assert not folder.paths('x')[0].exists()
    monkeypatch.undo()
    folder.save('x', IMAGE, IDS)
    assert [path.name for path in (folder.folder / 'masks').iterdir()] == ['x.png']


def test_the_same_settings_continue_and_others_are_refused(folder: PredictionFolder):
    folder.save('x', IMAGE, IDS)
    reopen(folder)
    assert folder.is_done('x')
    with pytest.raises(UserError) as caught:
        reopen(folder, checkpoint_sha256='def', model={'type': 'A', 'sizes': [(1, 3)], 'depth': 2})
    message = str(caught.value)
    assert '--overwrite: 3 problems' in message
    assert 'checkpoint_sha256: abc there, def now' in message
    assert 'model.sizes.0.1: 2 there, 3 now' in message
    assert 'model.depth: nothing there, 2 now' in message
    assert folder.is_done('x')


def test_a_record_without_results_binds_nobody(folder: PredictionFolder):
    reopen(folder, checkpoint_sha256='def')
    assert json.loads((folder.folder / 'predict.json').read_text())['settings']['checkpoint_sha256'] == 'def'


def test_many_differences_are_cut(folder: PredictionFolder):
    folder.save('x', IMAGE, IDS)
    with pytest.raises(UserError, match='and 12 more'):
        reopen(folder, **{f'key{i}': i for i in range(20)})


def test_overwrite_deletes_results_and_nothing_else(folder: PredictionFolder):
    folder.save('x', IMAGE, IDS)
    folder.save('a/y', IMAGE, IDS)
    (folder.folder / 'masks' / 'notes.txt').write_text('mine')
    reopen(folder, overwrite=True, checkpoint_sha256='def')
    kept = sorted(path.name for path in folder.folder.rglob('*') if path.is_file())
    assert kept == ['notes.txt', 'predict.json']
    assert json.loads((folder.folder / 'predict.json').read_text())['settings']['checkpoint_sha256'] == 'def'
    reopen(folder, checkpoint_sha256='def')


def test_overwrite_stopped_after_deleting_is_no_mixture(folder: PredictionFolder, monkeypatch: pytest.MonkeyPatch):
    import internvl_dense.data.result_folder as module

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    folder.save('x', IMAGE, IDS)
    monkeypatch.setattr(module, 'write_whole', stop)
    with pytest.raises(KeyboardInterrupt):
        reopen(folder, overwrite=True, checkpoint_sha256='def')
    assert not folder.is_done('x')


@pytest.mark.parametrize('overwrite', [False, True])
def test_results_of_unknown_origin_are_never_touched(tmp_path: Path, overwrite: bool):
    (tmp_path / 'masks').mkdir()
    (tmp_path / 'masks' / '1.png').write_text('labels drawn by hand')
    with pytest.raises(UserError, match='no predict.json'):
        PredictionFolder(tmp_path, POLICY).open(SETTINGS, overwrite=overwrite)
    assert [path.name for path in tmp_path.rglob('*')] == ['masks', '1.png']


def test_a_damaged_record_is_refused_and_can_be_overwritten(folder: PredictionFolder):
    folder.save('x', IMAGE, IDS)
    (folder.folder / 'predict.json').write_text('{"settings"')
    with pytest.raises(UserError, match='predict.json is damaged'):
        reopen(folder)
    reopen(folder, overwrite=True)
    reopen(folder)


def test_what_may_change_is_noted_and_not_compared(tmp_path: Path):
    PredictionFolder(tmp_path, POLICY).open(SETTINGS, about={'checkpoint': '/a.pth'})
    assert json.loads((tmp_path / 'predict.json').read_text())['checkpoint'] == '/a.pth'
    PredictionFolder(tmp_path, POLICY).save('x', IMAGE, IDS)
    PredictionFolder(tmp_path, POLICY).open(SETTINGS, about={'checkpoint': '/moved.pth'})
    assert json.loads((tmp_path / 'predict.json').read_text())['checkpoint'] == '/moved.pth'


def test_bad_files_are_listed_and_an_old_list_goes(folder: PredictionFolder):
    path = folder.write_bad_files({Path('/a/1.jpg'): 'the file is empty'})
    assert path is not None and path.read_text() == '/a/1.jpg\tthe file is empty\n'
    assert folder.write_bad_files({}) is None
    assert not path.exists()
