from __future__ import annotations

import json
import pathlib

import numpy as np
import pytest
from PIL import Image

from internvl_dense.errors import UserError
from internvl_dense.evaluation.curves import draw_curves, read_scalars, running_mean


def write_run(work_dir: pathlib.Path, start: str, rows: list[dict[str, float]]) -> pathlib.Path:
    """Scalars as mmengine's local logger writes them."""
    path = work_dir / start / 'vis_data' / 'scalars.json'
    path.parent.mkdir(parents=True)
    path.write_text(''.join(json.dumps(row) + '\n' for row in rows), encoding='utf-8')
    return path


def training(steps: int, best: float = 40.0) -> list[dict[str, float]]:
    rows: list[dict[str, float]] = []
    for step in range(10, steps + 1, 10):
        rows.append({'lr': 1e-4, 'loss': 3.0 / step, 'decode.loss_ce': 2.0 / step, 'iter': step, 'step': step})
        if step % 50 == 0:
            rows.append({'aAcc': 80.0, 'mIoU': best * step / steps, 'time': 0.1, 'step': step})
    return rows


def pixels(path: pathlib.Path) -> np.ndarray:
    with Image.open(path) as image:
        assert image.format == 'PNG'
        return np.asarray(image.convert('RGB'))


def test_draws_a_picture_of_the_values(tmp_path: pathlib.Path):
    source = write_run(tmp_path, '20260101_000000', training(200))
    first = pixels(draw_curves(source, tmp_path / 'new folder' / 'a.png', title='run'))
    assert min(first.shape[:2]) > 300
    assert first.std() > 5
    other = write_run(tmp_path / 'other', '20260101_000000', [*training(200), {'mIoU': 99.0, 'step': 210}])
    second = pixels(draw_curves(other, tmp_path / 'b.png', title='run'))
    assert (first != second).any()


@pytest.mark.parametrize('key', ['loss', 'mIoU', 'val/mIoU'])
def test_one_of_the_two_is_enough(tmp_path: pathlib.Path, key: str):
    source = write_run(tmp_path, 'start', [{key: 1.0, 'step': 1}, {key: float('nan'), 'step': 2}])
    assert pixels(draw_curves(source, tmp_path / 'a.png')).std() > 0


def test_scalars_by_name_and_step(tmp_path: pathlib.Path):
    rows = [{'loss': 2, 'note': 'x', 'done': True, 'step': 20}, {'loss': 1.5, 'step': 10}]
    source = write_run(tmp_path, 'start', rows)
    assert read_scalars(source) == {'loss': {10: 1.5, 20: 2.0}}
    assert list(read_scalars(source)['loss']) == [10, 20]


def test_work_directory_of_a_resumed_run(tmp_path: pathlib.Path):
    write_run(tmp_path, '20260102_000000', [{'loss': 7.0, 'step': 20}, {'loss': 6.0, 'step': 30}])
    write_run(tmp_path, '20260101_000000', [{'loss': 9.0, 'step': 10}, {'loss': 8.0, 'step': 20}])
    assert read_scalars(tmp_path) == {'loss': {10: 9.0, 20: 7.0, 30: 6.0}}


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('', 'no scalars were logged'),
        ('{"step": 1}\n', 'no scalars were logged'),
        ('{"time": 0.1, "step": 1}\n', r"neither loss nor mIoU was logged, only \['time'\]"),
        ('{"loss": 1.0, "step": 1}\n{"loss": 0.', r'scalars.json:2: not JSON .* delete the line'),
    ],
)
def test_files_without_curves(tmp_path: pathlib.Path, text: str, message: str):
    source = tmp_path / 'scalars.json'
    source.write_text(text)
    with pytest.raises(UserError, match=message):
        draw_curves(source, tmp_path / 'a.png')
    assert not (tmp_path / 'a.png').exists()


def test_no_file_at_all(tmp_path: pathlib.Path):
    for source in (tmp_path, tmp_path / 'scalars.json'):
        with pytest.raises(UserError, match='no scalars there'):
            read_scalars(source)


def test_running_mean_starts_unbiased_and_passes_over_nan():
    assert running_mean([4.0, 4.0, float('nan'), 4.0]) == pytest.approx([4.0] * 4)
    assert running_mean([0.0, 1.0], keep=0.5) == pytest.approx([0.0, 2 / 3])
    assert np.isnan(running_mean([float('nan')])).all()
