"""A data set in a folder: images and labels of the same name, in any image format."""

from __future__ import annotations

import pathlib
from typing import Any

from mmengine.registry import DATASETS
from mmseg.datasets import BaseSegDataset

from internvl_dense.data.few_shot import read_list
from internvl_dense.data.file_pairs import find_pairs
from internvl_dense.data.image_inputs import IMAGE_SUFFIXES

ENDINGS = (*IMAGE_SUFFIXES, *map(str.upper, IMAGE_SUFFIXES))


@DATASETS.register_module()
class FolderDataset(BaseSegDataset):
    """mmseg's BaseSegDataset for images with several endings.

    Args:
        img_suffix: One or several endings of images; those of `data.image_inputs` by default.
        kwargs: As for BaseSegDataset. `ann_file` lists names without ending, one a line.
    """

    def __init__(self, img_suffix: str | tuple[str, ...] = ENDINGS, **kwargs: Any) -> None:
        endings = (img_suffix,) if isinstance(img_suffix, str) else tuple(img_suffix)
        super().__init__(img_suffix=endings, **kwargs)

    def load_data_list(self) -> list[dict[str, Any]]:
        """One entry for each image that has a label, sorted by name."""
        names = read_list(pathlib.Path(self.ann_file)) if self.ann_file else None
        pairing = find_pairs(
            pathlib.Path(self.data_prefix['img_path']), pathlib.Path(self.data_prefix['seg_map_path']),
            self.img_suffix, self.seg_map_suffix, names,
        )
        shared = {'label_map': self.label_map, 'reduce_zero_label': self.reduce_zero_label}
        return [
            {'img_path': str(pair.image), 'seg_map_path': str(pair.label), **shared, 'seg_fields': []}
            for pair in pairing.pairs
        ]
