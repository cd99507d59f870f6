from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from internvl_dense.data.prepare.find_sources import find_sources
from internvl_dense.data.prepare.layouts import Selection
from internvl_dense.data.prepare.matching import select
from internvl_dense.data.prepare.run import LAYOUTS
from internvl_dense.data.prepare.tree import nearest_folder, refuse_full_disk, tree_state
from internvl_dense.errors import UserError
from tests.data.prepare import miniatures
from tests.data.prepare.conftest import Prepare
from tests.data.prepare.miniatures import saved


def selected(name: str, source: Path, root: Path) -> Selection:
    return select(LAYOUTS[name], find_sources([source], lambda line: None), root, miniatures.COUNTS)


def test_room_is_asked_for_before_the_work(tmp_path: Path) -> None:
    archives = miniatures.write_archives(tmp_path / 'downloads', 'ade20k')
    selection = selected('ade20k', archives, tmp_path / 'out')
    blocks = 12 * 4096  # each of the 12 files takes a whole block
    refuse_full_disk(selection, tmp_path / 'out', free_bytes=blocks)
    with pytest.raises(UserError, match=rf'{tmp_path} has 0\.0 GB free, and 0\.0 GB are needed; make room'):
        refuse_full_disk(selection, tmp_path / 'out', free_bytes=blocks - 1)


def test_only_what_is_written_counts(run: Prepare, tmp_path: Path) -> None:
    """Images are linked; label maps are converted, and may take twice their size."""
    archives = miniatures.write_archives(tmp_path / 'downloads', 'coco_stuff164k')
    extracted = miniatures.unpack(archives, tmp_path / 'extracted')
    large = np.random.default_rng(0).integers(0, 11, (300, 300), dtype=np.uint8)
    (extracted / 'val2017' / '000000000139.png').write_bytes(saved(large))
    selection = selected('coco_stuff164k', extracted, tmp_path / 'out' / 'coco_stuff164k')
    sizes = [path.stat().st_size for path in extracted.rglob('*.png')]
    needed = sum(-(-2 * size // 4096) * 4096 for size in sizes)
    assert len(sizes) == 5 and needed > 12 * 4096
    refuse_full_disk(selection, tmp_path / 'out', free_bytes=needed)
    with pytest.raises(UserError, match='GB are needed'):
        refuse_full_disk(selection, tmp_path / 'out', free_bytes=needed - 1)
    run('coco_stuff164k', extracted)
    refuse_full_disk(selection, tmp_path / 'out' / 'coco_stuff164k', free_bytes=0)


def test_state_counts_what_configs_would_read(run: Prepare, tmp_path: Path) -> None:
    run('coco_stuff164k', miniatures.write_archives(tmp_path / 'downloads', 'coco_stuff164k'))
    root = tmp_path / 'out' / 'coco_stuff164k'
    (root / 'annotations' / 'val2017' / '000000000139.png').write_bytes(b'a raw label map beside the converted one')
    state = tree_state(LAYOUTS['coco_stuff164k'], root)
    assert {name: part['files'] for name, part in state.items()} == {
        'val2017 label maps': 2, 'train2017 label maps': 3, 'val2017 images': 2, 'train2017 images': 3}
    assert state['val2017 images']['bytes'] == sum(
        path.stat().st_size for path in (root / 'images' / 'val2017').iterdir())


def test_a_file_in_the_way(run: Prepare, tmp_path: Path) -> None:
    assert nearest_folder(tmp_path / 'a' / 'b') == tmp_path
    (tmp_path / 'out').write_text('a file')
    with pytest.raises(UserError, match='out is not a folder, so .* cannot be made; choose another --out'):
        run('ade20k', tmp_path / 'nowhere')
