from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from internvl_dense.data.prepare.layouts import Counts
from internvl_dense.errors import UserError
from tests.data.prepare import miniatures
from tests.data.prepare.conftest import Prepare
from tests.data.prepare.miniatures import write_zip


def test_unsafe_archive_that_is_not_used_does_not_matter(run: Prepare, tmp_path: Path) -> None:
    source = miniatures.write_archives(tmp_path / 'downloads', 'ade20k')
    with zipfile.ZipFile(source / 'code.zip', 'w') as archive:
        archive.writestr('../setup.py', b'')
    run('ade20k', source)
    with pytest.raises(UserError, match=r"code\.zip: member '\.\./setup\.py'"):
        run('ade20k', source, source / 'code.zip', out=tmp_path / 'named')


def test_other_archives_are_no_suspects_where_the_right_one_is_there(run: Prepare, tmp_path: Path) -> None:
    """COCO's annotations beside the label maps are no mistake; images of a split are missing."""
    source = miniatures.write_archives(tmp_path / 'downloads', 'coco_stuff164k')
    write_zip(source / 'annotations_trainval2017.zip', miniatures.coco_annotations())
    (source / 'val2017.zip').unlink()
    with pytest.raises(UserError, match='val2017 images: 0 found') as caught:
        run('coco_stuff164k', source)
    assert 'annotations_trainval2017' not in str(caught.value)


def test_more_than_published_is_refused_of_a_subset_too(run: Prepare, tmp_path: Path) -> None:
    archives = miniatures.write_archives(tmp_path / 'downloads', 'ade20k')
    with pytest.raises(UserError, match='validation labels: 2 found, more than the 1 published'):
        run('ade20k', archives, counts=Counts(3, 1), partial=True)


def test_missing_sources_are_named(run: Prepare, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r'2 problems\n.*one\.zip: no such file or folder\n.*two: no such') as caught:
        run('ade20k', tmp_path / 'one.zip', tmp_path / 'two')
    assert 'as downloaded' in str(caught.value)
