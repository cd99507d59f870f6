"""Archives damaged at random: read as they were, or refused by name; nothing else."""

from __future__ import annotations

import tarfile
from pathlib import Path

import numpy as np
import pytest

from internvl_dense.data.prepare.entries import Source
from internvl_dense.data.prepare.find_sources import find_sources
from internvl_dense.data.prepare.folders import FolderSource
from internvl_dense.data.prepare.member_rules import Member
from internvl_dense.data.prepare.tar_archives import TarSource, _all_faults
from internvl_dense.data.prepare.zip_archives import ZipSource
from internvl_dense.errors import UserError
from tests.data.prepare import miniatures

FILES = {f'train2017/{number:012d}.jpg': miniatures.jpeg(number) for number in range(6)}
KINDS = {'a.zip': miniatures.write_zip, 'a.tar': miniatures.write_tar, 'a.tar.gz': miniatures.write_tar}


def content(source: Source) -> dict[str, bytes]:
    with source.reading(source.entries) as loads:
        return {entry.path: load() for entry, load in loads}


def opened(path: Path) -> Source:
    return (ZipSource if path.suffix == '.zip' else TarSource)(path)


@pytest.mark.parametrize('name', KINDS)
def test_content_is_what_was_put_in(tmp_path: Path, name: str) -> None:
    source = opened(KINDS[name](tmp_path / name, FILES))
    assert content(source) == FILES and source.faults == ()
    assert {entry.path: entry.size for entry in source.entries} == {path: len(data) for path, data in FILES.items()}
    assert source.has_checksums == (name != 'a.tar')


@pytest.mark.parametrize('name', KINDS)
def test_a_few_members_in_the_middle(tmp_path: Path, name: str) -> None:
    source = opened(KINDS[name](tmp_path / name, FILES))
    wanted = [source.entries[4], source.entries[1]]
    with source.reading(wanted) as loads:
        found = {entry.path: load() for entry, load in loads}
    assert found == {entry.path: FILES[entry.path] for entry in wanted}


def test_second_opinion_of_the_standard_library() -> None:
    """Were our rules to miss a link, the data filter of tarfile would not."""
    info = tarfile.TarInfo('a')
    info.type, info.linkname = tarfile.SYMTYPE, '../../etc'
    (fault,) = _all_faults(Member('a', 0), info)
    assert "member 'a': refused by tarfile" in fault
    assert _all_faults(Member('a', 0), tarfile.TarInfo('a')) == []


def test_unfinished_files_of_a_run_are_no_source(tmp_path: Path) -> None:
    miniatures.write_folder(tmp_path / 'coco', {'.prepare-data/1.tmp': b'', 'a.jpg': b''})
    assert [entry.path for entry in FolderSource(tmp_path / 'coco').entries] == ['coco/a.jpg']


def test_folder(tmp_path: Path) -> None:
    source = FolderSource(miniatures.write_folder(tmp_path / 'mine', FILES) / 'train2017')
    assert content(source) == FILES


@pytest.mark.parametrize('name', ['a.zip', 'a.tar.gz'])
@pytest.mark.parametrize('seed', range(60))
def test_changed_bytes(tmp_path: Path, name: str, seed: int) -> None:
    """Archives with checksums: every member is right, or the error names the file."""
    path = KINDS[name](tmp_path / name, FILES)
    random = np.random.default_rng(seed)
    data = bytearray(path.read_bytes())
    for place in random.integers(0, len(data), 1 + seed % 4):
        data[place] = random.integers(0, 256)
    path.write_bytes(bytes(data))
    try:
        source = opened(path)
        if not source.faults:
            found = content(source)
            assert all(found[member] == FILES.get(member, found[member]) for member in found)
    except UserError as error:
        assert 'archive' in str(error)


@pytest.mark.parametrize('name', KINDS)
@pytest.mark.parametrize('share', [0.0, 0.01, 0.3, 0.7, 0.99])
def test_cut_off(tmp_path: Path, name: str, share: float) -> None:
    path = KINDS[name](tmp_path / name, FILES)
    data = path.read_bytes()
    # Beyond the end mark, a tar holds nothing.
    end = len(data) if name != 'a.tar' else data.rindex(b'\xff\xd9')
    path.write_bytes(data[: int(end * share)])
    with pytest.raises(UserError, match='cannot be read|neither zip nor tar'):
        find_sources([path], lambda line: None)


def test_old_tar_format_and_long_names(tmp_path: Path) -> None:
    long = 'x' * 120 + '/train2017/000000000001.jpg'
    for number, kind in enumerate((tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)):
        path = tmp_path / f'{number}.tar'
        with tarfile.open(path, 'w', format=kind) as archive:
            (tmp_path / 'file').write_bytes(b'data')
            archive.add(tmp_path / 'file', long)
        assert content(TarSource(path)) == {long: b'data'}


def test_sources_are_told_by_content_and_counted_once(tmp_path: Path) -> None:
    place = tmp_path / 'mine'
    miniatures.write_zip(place / 'images.bin', FILES)
    miniatures.write_tar(place / 'deep' / 'b.tgz', FILES)
    miniatures.write_folder(place, FILES)
    lines: list[str] = []
    sources = find_sources([place, place / 'deep' / 'b.tgz', place, place / 'images.bin'], lines.append)
    assert [(source.kind, source.explicit) for source in sources] == [('folder', True), ('tar', True), ('zip', True)]
    assert lines == [f'{place}/deep/b.tgz: tar archive, 6 files', f'{place}/images.bin: zip archive, 6 files']
    found = find_sources([place], lambda line: None)
    assert [(source.kind, source.explicit) for source in found] == [
        ('folder', True), ('tar', False), ('zip', False)]


def test_all_broken_sources_are_named_at_once(tmp_path: Path) -> None:
    (tmp_path / 'a.zip').write_bytes(b'PK\x03\x04 cut off')
    (tmp_path / 'b.tar.gz').write_bytes(b'\x1f\x8b\x08 cut off')
    (tmp_path / 'c.zip').write_bytes(b'Rar!\x1a\x07\x00')
    with pytest.raises(UserError, match='3 problems') as caught:
        find_sources([tmp_path], lambda line: None)
    assert 'c.zip: neither zip nor tar, but a file that begins with 52 61 72 21' in str(caught.value)
