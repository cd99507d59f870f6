"""COCO-Stuff 164k: COCO's images, and label maps renumbered to the 171 classes that have pixels."""

from __future__ import annotations

import re

import numpy as np
import numpy.typing as npt

from internvl_dense.data.prepare.coco_names import ARCHIVE_PAGE, COUNTS, IMAGE_LICENCE, images, split_folder
from internvl_dense.data.prepare.contents import check_ids, decode_label, encode_label, has_png_end, same_ids
from internvl_dense.data.prepare.layouts import Content, Layout, Part, Selection, Split, Task, WrongRelease

# labels.md of github.com/nightrome/cocostuff: 91 thing and 91 stuff classes, numbered from 1; its note on the eleven
# thing classes removed from COCO. The label maps count from 0, so that class k is stored as k - 1 (README.md there,
# "Caffe-compatible stuff-thing maps").
NUM_RAW_CLASSES = 182
REMOVED_CLASSES = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83, 91)
NUM_CLASSES = NUM_RAW_CLASSES - len(REMOVED_CLASSES)
UNLABELED = 255
RULE = (f'raw ids are 0..{NUM_RAW_CLASSES - 1} without those of the eleven removed classes '
        f'({", ".join(str(number - 1) for number in REMOVED_CLASSES)}), and {UNLABELED} for no label')

RIGHT_ONE = 'get stuffthingmaps_trainval2017.zip from the COCO-Stuff page, github.com/nightrome/cocostuff, "Downloads"'
LICENCE = (
    f'{IMAGE_LICENCE} COCO-Stuff annotations: Creative Commons Attribution 4.0, as its page says: '
    'github.com/nightrome/cocostuff, "Licensing"'
)


def train_ids() -> dict[int, int]:
    """Raw id in the label maps -> training id: what remains without the removed classes, numbered in order."""
    raw = [number - 1 for number in range(1, NUM_RAW_CLASSES + 1) if number not in REMOVED_CLASSES]
    return {raw_id: train_id for train_id, raw_id in enumerate(raw)}


def lookup_table() -> npt.NDArray[np.uint8]:
    """(256,) training id of every raw id; 255 also for ids that do not occur, which `check_ids` refuses before."""
    table = np.full(256, UNLABELED, dtype=np.uint8)
    for raw_id, train_id in train_ids().items():
        table[raw_id] = train_id
    return table


TABLE = lookup_table()


def convert_label(data: bytes, task: Task, selection: Selection) -> Content:
    """A label map with training ids, as a PNG.

    Raises:
        UserError: No 8-bit PNG of one channel, or raw ids that are no class.
    """
    ids = decode_label(data)
    check_ids(ids, (*train_ids(), UNLABELED), RULE)
    return Content(encode_label(TABLE[ids]))


def _labels(split: Split) -> Part:
    folder = split_folder(split)
    return Part(
        name=f'{folder} label maps',
        split=split,
        pattern=re.compile(rf'(?:^|/){folder}/(?P<stem>\d{{12}})\.png$'),
        example=f'{folder}/*.png',
        target=f'annotations/{folder}/{{stem}}_labelTrainIds.png',
        treat=convert_label,
        partner=f'{folder} images',
        converts=True,
        is_done=has_png_end,
        is_same=same_ids,
    )


COCO_STUFF164K = Layout(
    name='coco_stuff164k',
    folder='coco_stuff164k',
    counts=COUNTS,
    parts=(
        _labels('val'), _labels('train'),
        *(images(split, f'images/{split_folder(split)}', f'{split_folder(split)} label maps')
          for split in ('val', 'train')),
    ),
    wrong=(
        WrongRelease(
            re.compile(r'(?:^|/)stuff_(?:train|val)2017(?:_pixelmaps)?(?:/|\.json$|\.zip$)'), 'label maps',
            'stuff_trainval2017.zip, whose annotations merge all things into one class', RIGHT_ONE),
        WrongRelease(
            re.compile(r'(?:^|/)COCO_train2014_\d{12}\.(?:mat|jpg|png)$'), '',
            'COCO-Stuff 10k or COCO 2014, older and smaller releases', RIGHT_ONE),
        WrongRelease(
            re.compile(r'(?:^|/)instances_(?:train|val)2017\.json$'), 'label maps',
            'annotations_trainval2017.zip, the boxes and outlines of COCO, which have no stuff', RIGHT_ONE),
        WrongRelease(
            re.compile(r'(?:^|/)panoptic_(?:train|val)2017(?:/|\.json$|\.zip$)'), 'label maps',
            "COCO's panoptic annotations, which have other classes", RIGHT_ONE),
        WrongRelease(
            re.compile(r'(?:^|/)\d{12}_labelTrainIds\.png$'), 'label maps',
            'label maps that are converted already; this command makes them from the raw ones', RIGHT_ONE),
    ),
    archives=f'{RIGHT_ONE}, and train2017.zip and val2017.zip from there or {ARCHIVE_PAGE}',
    licence=LICENCE,
)
