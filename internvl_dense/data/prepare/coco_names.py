"""What COCO and COCO-Stuff 164k share: the images of 2017, their names, numbers and terms."""

from __future__ import annotations

import re

from internvl_dense.data.prepare.contents import has_source_size, take_image
from internvl_dense.data.prepare.layouts import Counts, Part, Split

# cocodataset.org, "Download": 2017 train images [118K/18GB], val images [5K/1GB]; the exact number of train images is
# that of instances_train2017.json.
COUNTS = Counts(train=118287, val=5000)
ARCHIVE_PAGE = 'cocodataset.org, "Download"'
IMAGE_LICENCE = ('COCO images: the terms of use of Flickr, where they come from; the COCO consortium does not own them '
                 '(cocodataset.org, "Terms of Use").')


def split_folder(split: Split) -> str:
    """As in train2017.zip."""
    return f'{split}2017'


def images(split: Split, target: str, partner: str = '') -> Part:
    """The images of a split.

    Args:
        split: Which.
        target: Their folder below that of the data set.
        partner: The part with one file an image.
    """
    folder = split_folder(split)
    return Part(
        name=f'{folder} images',
        split=split,
        pattern=re.compile(rf'(?:^|/){folder}/(?P<stem>\d{{12}})\.jpg$'),
        example=f'{folder}/*.jpg',
        target=f'{target}/{{stem}}.jpg',
        treat=take_image,
        partner=partner,
        is_done=has_source_size,
    )
