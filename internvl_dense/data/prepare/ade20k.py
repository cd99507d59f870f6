"""ADE20K as the scene parsing benchmark released it: 150 classes, ids 1..150, 0 for everything else."""

from __future__ import annotations

import re

from internvl_dense.data.prepare.contents import check_ids, decode_label, has_source_size, take_image, take_text
from internvl_dense.data.prepare.layouts import (
    Content,
    Counts,
    Layout,
    Part,
    Selection,
    Split,
    Task,
    Treat,
    WrongRelease,
)

NUM_CLASSES = 150
# sceneparsing.csail.mit.edu, "Downloads".
COUNTS = Counts(train=20210, val=2000)
RIGHT_ONE = 'get ADEChallengeData2016.zip from the MIT scene parsing challenge page, sceneparsing.csail.mit.edu'
LICENCE = (
    'ADE20K: the terms allow the images for non-commercial research and educational use only, and name BSD-3 for the '
    'annotations; read them on the page: groups.csail.mit.edu/vision/datasets/ADE20K/terms'
)
# Folder and file names of the splits, as in images/training/ADE_train_00000001.jpg.
SPLIT_NAMES: dict[Split, tuple[str, str]] = {'train': ('training', 'ADE_train'), 'val': ('validation', 'ADE_val')}


def take_label(data: bytes, task: Task, selection: Selection) -> Content:
    """A label as it is, once decoded and its ids checked.

    Raises:
        UserError: No 8-bit PNG of one channel, or ids above 150.
    """
    check_ids(decode_label(data), range(NUM_CLASSES + 1), f'ids are 0 (no class) to {NUM_CLASSES}')
    return Content(data)


def _files(split: Split, kind: str, top: str, ending: str, partner: str, treat: Treat) -> Part:
    """Files of a split, one an image.

    Args:
        split: Which.
        kind: What they are called in messages.
        top: Folder above those of the splits.
        ending: Of their names.
        partner: The `kind` with the same stems.
        treat: As for `Part`.
    """
    folder, prefix = SPLIT_NAMES[split]
    return Part(
        name=f'{folder} {kind}',
        split=split,
        pattern=re.compile(rf'(?:^|/){top}/{folder}/(?P<stem>{prefix}_\d{{8}})\.{ending}$'),
        example=f'{top}/{folder}/{prefix}_*.{ending}',
        target=f'{top}/{folder}/{{stem}}.{ending}',
        treat=treat,
        partner=f'{folder} {partner}',
        is_done=has_source_size,
    )


def _labels(split: Split) -> Part:
    return _files(split, 'labels', 'annotations', 'png', 'images', take_label)


def _images(split: Split) -> Part:
    return _files(split, 'images', 'images', 'jpg', 'labels', take_image)


def _text(name: str) -> Part:
    pattern = re.compile(rf'(?:^|/)ADEChallengeData2016/(?P<stem>{name})\.txt$')
    file = f'{name}.txt'
    return Part(name=file, split=None, pattern=pattern, example=file, target=file, treat=take_text, single=True)


ADE20K = Layout(
    name='ade20k',
    folder='ADEChallengeData2016',
    counts=COUNTS,
    parts=(
        _text('objectInfo150'), _text('sceneCategories'),
        _labels('val'), _labels('train'), _images('val'), _images('train'),
    ),
    wrong=(
        WrongRelease(
            re.compile(r'(?:^|/)(?:ADE20K_20\d\d_\d\d_\d\d|index_ade20k\.(?:pkl|mat)$|ADE_\w+_\d{8}_seg\.png$)'), '',
            'the full ADE20K data set, whose labels code thousands of categories as colours, not the 150 classes',
            RIGHT_ONE),
        WrongRelease(
            re.compile(r'(?:^|/)ADE_test_\d{8}\.jpg$'), '',
            'release_test.zip, the test images, which have no labels', RIGHT_ONE),
    ),
    archives=f'{RIGHT_ONE} (images and annotations of both splits are in it)',
    licence=LICENCE,
)
