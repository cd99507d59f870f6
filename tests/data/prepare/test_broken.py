"""Archives that are damaged, unsafe, of the wrong release or incomplete: refused by name, nothing half-made left."""

from __future__ import annotations

import gzip
import io
import json
import stat
import tarfile
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from internvl_dense.data.prepare.layouts import Counts
from internvl_dense.data.prepare.member_rules import MAX_MEMBER_BYTES
from internvl_dense.data.prepare.run import LAYOUTS, prepare
from internvl_dense.errors import UserError
from tests.data.prepare import miniatures
from tests.data.prepare.conftest import Prepare, Steps
from tests.data.prepare.miniatures import ade20k, saved, tree, without_record, write_tar, write_zip

TRAIN_IMAGE = 'ADEChallengeData2016/images/training/ADE_train_00000002.jpg'
TRAIN_LABEL = 'ADEChallengeData2016/annotations/training/ADE_train_00000002.png'
SHAPE = (16, 24)

Change = Callable[[Path], object]


@dataclass(frozen=True)
class Broken:
    """A case: what it is called, what spoils the archive, and what the message must say."""

    name: str
    change: Change
    message: str
    data_set: str = 'ade20k'


def zip_with(data: bytes = b'x', **fields: object) -> Change:
    """The good archive and one member more, with fields of its ZipInfo set."""

    def change(folder: Path) -> None:
        write_zip(folder / 'ADEChallengeData2016.zip', ade20k())
        info = zipfile.ZipInfo('ADEChallengeData2016/extra')
        info.compress_type = zipfile.ZIP_DEFLATED
        for key, value in fields.items():
            setattr(info, key, value)
        with warnings.catch_warnings(), zipfile.ZipFile(folder / 'ADEChallengeData2016.zip', 'a') as archive:
            warnings.simplefilter('ignore', UserWarning)  # zipfile's own about a duplicate name
            archive.writestr(info, data)

    return change


def tar_with(suffix: str = 'tar', **fields: object) -> Change:
    """The good archive as a tar, and one member without content."""

    def change(folder: Path) -> None:
        path = write_tar(folder / 'plain.tar', ade20k())
        info = tarfile.TarInfo('ADEChallengeData2016/extra')
        for key, value in fields.items():
            setattr(info, key, value)
        with tarfile.open(path, 'a') as archive:
            archive.addfile(info)
        if suffix == 'tar.gz':
            (folder / 'packed.tar.gz').write_bytes(gzip.compress(path.read_bytes()))
            path.unlink()

    return change


def files_with(changed: dict[str, bytes | None], data_set: str = 'ade20k') -> Change:
    """The good files, some of them replaced, added or (None) left out."""

    def change(folder: Path) -> None:
        if data_set == 'ade20k':
            files = {**ade20k(), **changed}
        else:
            labels = miniatures.stuff_maps() if data_set == 'coco_stuff164k' else miniatures.coco_annotations()
            files = {**miniatures.coco_images('train'), **miniatures.coco_images('val'), **labels, **changed}
        write_zip(folder / 'all.zip', {name: data for name, data in files.items() if data is not None})

    return change


def stuff(number: int) -> Change:
    """A label map of COCO-Stuff with one pixel of a raw id."""
    ids = np.zeros(SHAPE, dtype=np.uint8)
    ids[0, 0] = number
    return files_with({'train2017/000000000025.png': saved(ids)}, 'coco_stuff164k')


def annotations(**lists: object) -> Change:
    content = {**miniatures.instances('val'), **lists}
    return files_with({'annotations/instances_val2017.json': json.dumps(content).encode()}, 'coco')


def encrypted(folder: Path) -> None:
    """The bit in both headers of one member; zipfile cannot write an encrypted archive."""
    path = write_zip(folder / 'a.zip', ade20k())
    data = bytearray(path.read_bytes())
    name = TRAIN_IMAGE.encode()
    local = data.index(name) - 30
    central = data.index(name, data.index(b'PK\x01\x02')) - 46
    data[local + 6] |= 1
    data[central + 8] |= 1
    path.write_bytes(bytes(data))


def cut(size_of: Callable[[bytes], int], write: Callable[..., Path] = write_zip, name: str = 'a.zip') -> Change:
    def change(folder: Path) -> None:
        path = write(folder / name, ade20k())
        data = path.read_bytes()
        path.write_bytes(data[: size_of(data)])

    return change


def flipped_byte(folder: Path) -> None:
    """In the content of one stored image: only its checksum tells."""
    files = ade20k()
    path = folder / 'a.zip'
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_STORED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    data = bytearray(path.read_bytes())
    data[data.index(files[TRAIN_IMAGE]) + 300] ^= 1
    path.write_bytes(bytes(data))


def too_long_tar(folder: Path) -> None:
    """A .tar.gz whose member claims 10 GB; its zeros would take a while to unpack."""
    info = tarfile.TarInfo('ADEChallengeData2016/extra')
    info.size = 10**10
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode='w:gz') as archive:
        archive.addfile(info)
    (folder / 'a.tar.gz').write_bytes(buffer.getvalue())


def gzip_of_zeros(folder: Path) -> None:
    (folder / 'a.tar.gz').write_bytes(gzip.compress(tar_bytes() + bytes(40 * 2**20), compresslevel=1))


def long_header(folder: Path) -> None:
    """An extended header of 50 MB of zeros, which tarfile would read whole."""
    info = tarfile.TarInfo('././@PaxHeader')
    info.type, info.size = tarfile.XHDTYPE, 50 * 10**6
    data = info.tobuf(tarfile.USTAR_FORMAT) + bytes(info.size + 512) + tar_bytes()
    (folder / 'a.tar.gz').write_bytes(gzip.compress(data, compresslevel=1))


def tar_bytes() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode='w') as archive:
        for name, data in ade20k().items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def truncated_image_in_folder(folder: Path) -> None:
    files = ade20k()
    miniatures.write_folder(folder, {**files, TRAIN_IMAGE: files[TRAIN_IMAGE][:-200]})


def two_sizes(folder: Path) -> None:
    write_zip(folder / 'a.zip', ade20k())
    miniatures.write_folder(folder / 'extracted', {TRAIN_IMAGE: b'half'})


def too_large(folder: Path) -> None:
    """An image of 64 MB and a byte, all but its beginning a hole in the file."""
    miniatures.write_folder(folder, ade20k())
    with (folder / 'ADEChallengeData2016/images/validation/ADE_val_00000001.jpg').open('r+b') as file:
        file.truncate(64 * 2**20 + 1)


def web_page(folder: Path) -> None:
    (folder / 'ADEChallengeData2016.zip').write_bytes(b'<!DOCTYPE html><html>quota exceeded</html>')


GREY = np.zeros(SHAPE, dtype=np.uint8)
UNIX = 3
BOMB = bytes(3 * 2**20)
FULL_RELEASE = {
    'ADE20K_2021_17_01/index_ade20k.pkl': b'',
    'ADE20K_2021_17_01/images/ADE/training/urban/street/ADE_train_00016869.jpg': b'',
    'ADE20K_2021_17_01/images/ADE/training/urban/street/ADE_train_00016869_seg.png': b''}
OLD_FULL_RELEASE = {
    'ADE20K_2016_07_26/images/training/a/abbey/ADE_train_00000970.jpg': b'', 'ADE20K_2016_07_26/index_ade20k.mat': b''}

CASES = [
    # Names that lead elsewhere.
    Broken('zip ..', zip_with(filename='ADEChallengeData2016/../../evil'), r"a path with '\.\.', which leads out"),
    Broken('zip absolute', zip_with(filename='/etc/evil'), "'/etc/evil': an absolute path"),
    Broken('zip drive', zip_with(filename='C:/evil'), "'C:/evil': a path with a drive letter"),
    Broken('zip backslash', zip_with(filename='a\\..\\evil'), 'a backslash in the name'),
    Broken('zip zero byte', zip_with(filename='ADEChallengeData2016/a.txt\0.png'), 'control characters in the name'),
    Broken('zip newline', zip_with(filename='a\nb'), 'control characters in the name'),
    Broken('tar ..', tar_with(name='../evil'), r"a path with '\.\.'"),
    Broken('tar absolute', tar_with(name='/opt/evil'), "'/opt/evil': an absolute path"),
    # Things that are no files.
    Broken('zip symlink', zip_with(b'/etc/passwd', create_system=UNIX, external_attr=(stat.S_IFLNK | 0o777) << 16),
           r"ADEChallengeData2016/extra': a symbolic link; only files and folders"),
    Broken('zip symlink as folder', zip_with(
        b'', filename='ADEChallengeData2016/x/', create_system=UNIX, external_attr=(stat.S_IFLNK | 0o777) << 16),
        'a symbolic link; only'),
    Broken('zip device', zip_with(create_system=UNIX, external_attr=(stat.S_IFCHR | 0o666) << 16), 'a device; only'),
    Broken('tar symlink', tar_with(type=tarfile.SYMTYPE, linkname='/etc'), 'a symbolic link; only'),
    Broken('tar.gz symlink', tar_with('tar.gz', type=tarfile.SYMTYPE, linkname='..'), 'a symbolic link; only'),
    Broken('tar hard link', tar_with(type=tarfile.LNKTYPE, linkname='/etc/passwd'), 'a hard link; only'),
    Broken('tar device', tar_with(type=tarfile.BLKTYPE), 'a device; only'),
    Broken('tar fifo', tar_with(type=tarfile.FIFOTYPE), 'a pipe or socket; only'),
    Broken('tar sparse', tar_with(type=tarfile.GNUTYPE_SPARSE), '(a sparse file; only|cannot be read)'),
    # Sizes.
    Broken('zip bomb', zip_with(BOMB), r'bytes would unpack to 3145728, more than 200 times as much: a decompression'),
    Broken('tar bomb', too_long_tar, rf'10000000000 bytes, {MAX_MEMBER_BYTES} allowed'),
    Broken('zeros after a tar', gzip_of_zeros, 'more than 16777216 bytes after the end mark'),
    Broken('tar header bomb', long_header, r'a header of \d+ bytes, 1048576 allowed'),
    # One path twice.
    Broken('zip duplicate', zip_with(filename=TRAIN_IMAGE), f"'{TRAIN_IMAGE}': two for one path"),
    Broken('zip case', zip_with(filename=TRAIN_IMAGE.upper()), 'two for one path'),
    Broken('tar duplicate', tar_with(name=TRAIN_IMAGE), 'two for one path'),
    Broken('file and folder', zip_with(filename='ADEChallengeData2016/images'),
           r"'ADEChallengeData2016/images': (two for one path|a file and a folder)"),
    # Reading.
    Broken('encrypted', encrypted, f"'{TRAIN_IMAGE}': encrypted"),
    Broken('lzma', zip_with(compress_type=zipfile.ZIP_LZMA), 'compressed by zip method 14, which is not read'),
    Broken('zip cut off', cut(lambda data: len(data) // 2), r'a\.zip: a zip archive of \d+ bytes that cannot be read'),
    Broken('zip without end', cut(lambda data: len(data) - 30), r'a\.zip: a zip archive of \d+ bytes'),
    Broken('empty file', cut(lambda data: 0), r'a\.zip: neither zip nor tar, but an empty file'),
    Broken('tar cut off', cut(lambda data: len(data) // 2, write_tar, 'a.tar'), r'a\.tar: a tar archive of \d+ bytes'),
    Broken('tar cut between members', cut(lambda data: data.index(b'./', 5000), write_tar, 'a.tar'),
           r'no end mark after \d members'),
    Broken('tar.gz cut off', cut(lambda data: len(data) // 2, write_tar, 'a.tar.gz'), r'a\.tar\.gz: a tar archive'),
    Broken('flipped byte', flipped_byte, rf'a\.zip: {TRAIN_IMAGE}: damaged in the archive \(Bad CRC-32'),
    Broken('web page', web_page, 'neither zip nor tar, but a web page: the download failed'),
    Broken('cut off image in a folder', truncated_image_in_folder, r'ADE_train_00000002\.jpg: damaged JPEG file'),
    Broken('two sizes', two_sizes, r'training images: 1 found with different sizes: .*\(4 bytes\).*; name only'),
    # Not what it should be.
    Broken('full ADE20K', lambda folder: write_zip(folder / 'a.zip', FULL_RELEASE),
           r'the full ADE20K data set(.|\n)*get ADEChallengeData2016\.zip from the MIT scene parsing challenge page'),
    Broken('old full ADE20K', lambda folder: write_tar(folder / 'a.tar', OLD_FULL_RELEASE), 'the full ADE20K data set'),
    Broken('extracted full ADE20K', lambda folder: miniatures.write_folder(folder, FULL_RELEASE), 'the full ADE20K'),
    Broken('ADE20K test', lambda folder: write_zip(
        folder / 'a.zip', {'release_test/testing/ADE_test_00000001.jpg': b''}), r'release_test\.zip, the test images'),
    Broken('stuff only', lambda folder: write_zip(
        folder / 'a.zip', {'stuff_train2017.json': b'{}', 'stuff_train2017_pixelmaps.zip': b''}),
        r'stuff_trainval2017\.zip, whose annotations(.|\n)*get stuffthingmaps_trainval2017\.zip', 'coco_stuff164k'),
    Broken('COCO-Stuff 10k', lambda folder: write_zip(
        folder / 'a.zip', {'images/COCO_train2014_000000000077.jpg': b'',
                           'annotations/COCO_train2014_000000000077.mat': b''}), 'COCO-Stuff 10k', 'coco_stuff164k'),
    Broken('boxes for stuff', lambda folder: write_zip(folder / 'a.zip', miniatures.coco_annotations()),
           r'annotations_trainval2017\.zip, the boxes', 'coco_stuff164k'),
    Broken('stuff for boxes', lambda folder: write_zip(folder / 'a.zip', miniatures.stuff_maps()),
           'label maps of COCO-Stuff', 'coco'),
    Broken('nothing', lambda folder: write_zip(folder / 'a.zip', {'a.txt': b''}), r'0 found, 3 published \(as image'),
    # Numbers and partners.
    Broken('missing label', files_with({TRAIN_LABEL: None}),
           r'training labels: 2 found, 3 published(.|\n)*training images: 1 have no file .*: ADE_train_00000002'),
    Broken('missing split', files_with({name: None for name in ade20k() if '/validation/' in name}),
           r'validation images: 0 found, 2 published \(as images/validation/ADE_val_\*\.jpg\)'),
    Broken('one too many', files_with({TRAIN_IMAGE.replace('02', '04'): b'', TRAIN_LABEL.replace('02', '04'): b''}),
           r'training images: 4 found, 3 published'),
    Broken('too large', too_large, rf'validation images: 1 files of more than {64 * 2**20} bytes'),
    # Labels and images.
    Broken('16-bit label', files_with({TRAIN_LABEL: saved(GREY.astype(np.uint16))}),
           rf'all\.zip: {TRAIN_LABEL}: 16-bit grey; a label of this data set is 8-bit'),
    Broken('RGB label', files_with({TRAIN_LABEL: saved(np.zeros((*SHAPE, 3), np.uint8))}), 'png: 8-bit RGB; a label'),
    Broken('1-bit label', files_with({TRAIN_LABEL: saved(GREY > 0)}), 'png: 1-bit grey; a label'),
    Broken('JPEG label', files_with({TRAIN_LABEL: miniatures.jpeg(1)}), 'png: no PNG file: it begins with ff d8 ff'),
    Broken('cut off label', files_with({TRAIN_LABEL: ade20k()[TRAIN_LABEL][:-20]}), 'png: a PNG file without its end'),
    Broken('ADE20K id', files_with({TRAIN_LABEL: saved(GREY + 151)}), r'png: id 151 \(384 pixels\); ids are 0 \(no'),
    Broken('no image', files_with({TRAIN_IMAGE: b'text'}), 'jpg: no image file: it begins with 74 65 78 74'),
    Broken('removed class', stuff(11), r'train2017/000000000025\.png: id 11 \(1 pixels\); raw ids', 'coco_stuff164k'),
    Broken('beyond the classes', stuff(182), r'000000000025\.png: id 182 \(1 pixels\)', 'coco_stuff164k'),
    Broken('254', stuff(254), r'000000000025\.png: id 254 \(1 pixels\)', 'coco_stuff164k'),
    # Annotations.
    Broken('json cut off', files_with({'annotations/instances_val2017.json': b'{"images": ['}, 'coco'),
           r'all\.zip: annotations/instances_val2017\.json: no complete json file', 'coco'),
    Broken('json deep', files_with({'annotations/instances_val2017.json': b'[' * 10**6}, 'coco'),
           'no complete json file', 'coco'),
    Broken('json list', files_with({'annotations/instances_val2017.json': b'[]'}, 'coco'),
           'no COCO annotations', 'coco'),
    Broken('79 categories', annotations(categories=miniatures.instances('val')['categories'][:79]),
           '79 categories, 80 expected', 'coco'),
    Broken('image that is not there', annotations(images=[
        *miniatures.instances('val')['images'], {'id': 7, 'file_name': '000000000007.jpg'}]),
        r'1 of 3 images are not in val2017: 000000000007\.jpg', 'coco'),
]


@pytest.fixture(scope='module')
def good(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Every file of the three data sets as it should become: path below the output folder -> hash."""
    folder = tmp_path_factory.mktemp('good')
    for name, layout in LAYOUTS.items():
        archives = miniatures.write_archives(folder / 'downloads' / name, name)
        prepare(layout, [archives], folder / 'out', say=lambda line: None, progress=Steps, counts=miniatures.COUNTS)
    return tree(folder / 'out')


@pytest.mark.parametrize('case', CASES, ids=lambda case: case.name)
def test_refused_by_name_and_nothing_half_made(
    run: Prepare, tmp_path: Path, case: Broken, good: dict[str, str]
) -> None:
    source = tmp_path / 'source'
    source.mkdir()
    case.change(source)
    mine = tmp_path / 'out' / 'mine.txt'
    mine.parent.mkdir()
    mine.write_text('before')
    before = tree(tmp_path)
    with pytest.raises(UserError, match=case.message):
        run(case.data_set, source)
    after = tree(tmp_path)
    assert {name: after[name] for name in before} == before, 'nothing that was there before is touched'
    new = {name.removeprefix('out/'): digest for name, digest in after.items()
           if name not in before and not name.endswith('/.prepare-data/started.json')}
    assert new.items() <= without_record(good).items(), 'only whole files, under their names, and no record'


LISTED = {case.name for case in CASES[:CASES.index(next(case for case in CASES if case.name == '16-bit label'))]}
READ = {'flipped byte', 'cut off image in a folder'}


@pytest.mark.parametrize('case', [case for case in CASES if case.name in LISTED - READ], ids=lambda case: case.name)
def test_what_lists_tell_is_told_before_anything_is_made(run: Prepare, tmp_path: Path, case: Broken) -> None:
    source = tmp_path / 'source'
    source.mkdir()
    case.change(source)
    for partial in (False, case.name in ('zip bomb', 'zip ..', 'tar symlink', 'encrypted', 'zip duplicate')):
        with pytest.raises(UserError):
            run(case.data_set, source, partial=partial)
    assert not (tmp_path / 'out').exists()


def test_all_faults_of_an_archive_come_together(run: Prepare, tmp_path: Path) -> None:
    path = tmp_path / 'a.zip'
    with zipfile.ZipFile(path, 'w') as archive:
        for name in ('../a', '/b', 'C:c', *(f'../{number}' for number in range(30))):
            archive.writestr(name, b'')
    with pytest.raises(UserError) as caught:
        run('ade20k', path)
    text = str(caught.value)
    assert all(f'member {name!r}' in text for name in ('../a', '/b', 'C:c'))
    assert 'and 13 more' in text


def test_bad_labels_come_together(run: Prepare, tmp_path: Path) -> None:
    files = {name: saved(GREY + 200) if name.endswith('.png') else data for name, data in ade20k().items()}
    with pytest.raises(UserError) as caught:
        run('ade20k', write_zip(tmp_path / 'a.zip', files))
    assert str(caught.value).count('id 200') == 5


def test_many_bad_labels_end_the_run(run: Prepare, tmp_path: Path) -> None:
    bad, image = saved(GREY + 200), miniatures.jpeg(1)
    files = {name: data for name, data in ade20k().items() if '/validation/' in name}
    for number in range(1, 101):
        files[f'ADEChallengeData2016/annotations/training/ADE_train_{number:08d}.png'] = bad
        files[f'ADEChallengeData2016/images/training/ADE_train_{number:08d}.jpg'] = image
    with pytest.raises(UserError, match='2[01] problems'):
        run('ade20k', write_zip(tmp_path / 'a.zip', files), counts=Counts(100, 2))
