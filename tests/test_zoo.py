"""The rows of the published models."""

from __future__ import annotations

import re

from internvl_dense.zoo import ZOO

# From the README of the publisher: file stem and mIoU.
FIGURES = {
    'linear_intern_vit_6b_504_80k_ade20k_bs16_lr4e-5_frozen': 47.2,
    'upernet_intern_vit_6b_504_80k_ade20k_bs16_lr4e-5_frozen': 54.9,
    'upernet_intern_vit_6b_504_80k_ade20k_bs16_lr4e-5': 58.9,
    'linear_intern_vit_6b_504_5k_ade20k_bs16_lr4e-5_1of16': 46.5,
    'linear_intern_vit_6b_504_10k_ade20k_bs16_lr4e-5_1of8': 50.0,
    'linear_intern_vit_6b_504_20k_ade20k_bs16_lr4e-5_1of4': 53.3,
    'linear_intern_vit_6b_504_40k_ade20k_bs16_lr4e-5_1of2': 55.8,
    'linear_intern_vit_6b_504_80k_ade20k_bs16_lr4e-5_1of1': 57.2,
}


def test_every_released_file_has_its_row():
    rows = [ZOO.get(name) for name in ZOO.list()]
    assert {row.stem: row.miou for row in rows} == FIGURES
    assert {(row.file, row.log) for row in rows} == {(f'{stem}.pth', f'{stem}.log') for stem in FIGURES}


def test_unseen_checksums_are_not_invented():
    assert all(row.sha256 is None or re.fullmatch('[0-9a-f]{64}', row.sha256) for row in map(ZOO.get, ZOO.list()))
