"""Runs that were stopped: by an error, by a kill, by a power cut."""

from __future__ import annotations

import dataclasses
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from internvl_dense.data.prepare.run import LAYOUTS
from internvl_dense.errors import UserError
from tests.data.prepare import miniatures
from tests.data.prepare.conftest import Prepare
from tests.data.prepare.miniatures import stamps, tree, without_record

ROOT = Path(__file__).resolve().parents[3]


class Crash(Exception):
    """Stands for whatever ends a run."""


def crashing(data_set: str, at: int, action: object = None) -> tuple[object, list[str]]:
    """The layout of a data set whose files fail from number `at` on, and the list of files treated."""
    treated: list[str] = []

    def wrap(part):
        def treat(data, task, selection):
            treated.append(str(task.target))
            if len(treated) >= at:
                if callable(action):
                    action()
                raise Crash(at)
            return part.treat(data, task, selection)

        return dataclasses.replace(part, treat=treat)

    layout = LAYOUTS[data_set]
    return dataclasses.replace(layout, parts=tuple(wrap(part) for part in layout.parts)), treated


@pytest.mark.parametrize('at', [1, 2, 4, 7])
def test_interrupted_run_goes_on_where_it_was(
    run: Prepare, data_set: str, archives: Path, tmp_path: Path, at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(data_set, archives, out=tmp_path / 'whole')
    layout, _ = crashing(data_set, at)
    with monkeypatch.context() as patch:
        patch.setitem(LAYOUTS, data_set, layout)
        with pytest.raises(Crash):
            run(data_set, archives, threads=1)
    names = list(tree(tmp_path / 'out')) if (tmp_path / 'out').exists() else []
    root = tmp_path / 'out' / LAYOUTS[data_set].folder
    assert not (root / 'prepared.json').exists()
    assert not [name for name in names if name.endswith('.tmp')]
    assert (tmp_path / 'out').exists() == (at > 1), 'folders that nothing was put in are removed'
    before = stamps(tmp_path / 'out')
    layout, treated = crashing(data_set, 10**6)
    with monkeypatch.context() as patch:
        patch.setitem(LAYOUTS, data_set, layout)
        lines = run(data_set, archives)
    assert without_record(tree(tmp_path / 'out')) == without_record(tree(tmp_path / 'whole'))
    assert f'{at - 1} kept' in lines[-1] if at > 1 else 'kept' not in lines[-1]
    after = stamps(tmp_path / 'out')
    finished = [path for path in before if path.endswith(('.jpg', '.png'))]
    assert all(after[path] == before[path] for path in finished)
    assert not {str(Path(path).relative_to(root)) for path in finished} & set(treated), 'made twice'
    assert not (root / '.prepare-data').exists()


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {root!r})
from internvl_dense.data.prepare.run import LAYOUTS, prepare
from tests.data.prepare import miniatures
from tests.data.prepare.conftest import Steps
from tests.data.prepare.test_resume import crashing
layout, _ = crashing({data_set!r}, 5, lambda: os.kill(os.getpid(), signal.SIGKILL))
prepare(layout, [Path({archives!r})], Path({out!r}), say=print, progress=Steps, counts=miniatures.COUNTS, threads=1)
"""


def test_killed_run_goes_on_and_its_unfinished_files_go(run: Prepare, tmp_path: Path) -> None:
    archives = miniatures.write_archives(tmp_path / 'downloads', 'coco_stuff164k')
    run('coco_stuff164k', archives, out=tmp_path / 'whole')
    code = KILLED.format(root=str(ROOT), data_set='coco_stuff164k', archives=str(archives), out=str(tmp_path / 'out'))
    done = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    work = tmp_path / 'out' / 'coco_stuff164k' / '.prepare-data'
    (work / '7.tmp').write_bytes(b'half a file')
    lines = run('coco_stuff164k', archives)
    assert '4 kept' in lines[-1]
    assert without_record(tree(tmp_path / 'out')) == without_record(tree(tmp_path / 'whole'))
    assert not work.exists()


def test_label_that_lost_its_end_is_not_taken_for_finished(
    run: Prepare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a power cut: the name is there, the data is not."""
    archives = miniatures.write_archives(tmp_path / 'downloads', 'coco_stuff164k')
    layout, _ = crashing('coco_stuff164k', 3)
    with monkeypatch.context() as patch:
        patch.setitem(LAYOUTS, 'coco_stuff164k', layout)
        with pytest.raises(Crash):
            run('coco_stuff164k', archives, threads=1)
    label = next((tmp_path / 'out').rglob('*_labelTrainIds.png'))
    label.write_bytes(label.read_bytes()[:-1])
    with pytest.raises(UserError, match=f'{label}: there already, and not what .* gives; move it away'):
        run('coco_stuff164k', archives)
    label.unlink()
    run('coco_stuff164k', archives)


def test_existing_files_of_another_run_are_not_trusted_by_size(run: Prepare, tmp_path: Path) -> None:
    """Same name and size, other bytes, and no note of a run of ours."""
    archives = miniatures.write_archives(tmp_path / 'downloads', 'ade20k')
    image = 'ADEChallengeData2016/images/training/ADE_train_00000002.jpg'
    data = bytearray(miniatures.ade20k()[image])
    data[-10] ^= 1
    miniatures.write_folder(tmp_path / 'out', {image: bytes(data)})
    with pytest.raises(UserError, match=r'ADE_train_00000002\.jpg: there already, and not what .* gives'):
        run('ade20k', archives)
    assert (tmp_path / 'out' / image).read_bytes() == bytes(data)
    assert not list((tmp_path / 'out').rglob('*.tmp')) and not list((tmp_path / 'out').rglob('prepared.json'))
    with pytest.raises(UserError, match='there already'):
        run('ade20k', archives)
