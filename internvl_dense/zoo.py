"""The table of published segmentation models: a row states the file, its log and the figure it was published with."""

from __future__ import annotations

import dataclasses

from internvl_dense.registry import Registry

REPOSITORY = 'OpenGVLab/InternVL'  # on the Hugging Face hub; every file lies at its root
LICENCE = 'MIT'
SOURCE = 'README of OpenGVLab/InternVL-MMDetSeg, mmsegmentation/'
UNSEEN = 'unknown until first seen'


@dataclasses.dataclass(frozen=True)
class ReleasedModel:
    """A whole segmentor that its authors published.

    Args:
        name: The cell: stem of the config that builds it, below `configs/`.
        folder: Folder of that config.
        stem: Stem of the published files: `<stem>.pth` is the checkpoint, `<stem>.log` the training log.
        miou: Published mIoU in percent, single scale.
        size_gb: Size of the checkpoint in GB (1e9 bytes); None where the publisher states none.
        sha256: Checksum of the checkpoint in hex; None until someone has seen the file.
        source: Where the figure is stated.
    """

    name: str
    folder: str
    stem: str
    miou: float
    size_gb: float | None = None
    sha256: str | None = None
    source: str = SOURCE

    @property
    def config(self) -> str:
        """Path of the config below `configs/`, without '.py'."""
        return f'{self.folder}/{self.name}'

    @property
    def file(self) -> str:
        """Name of the checkpoint."""
        return f'{self.stem}.pth'

    @property
    def log(self) -> str:
        """Name of the training log."""
        return f'{self.stem}.log'


ZOO: Registry[ReleasedModel] = Registry('published model', hint='See internvl-dense fetch --list.')

_FEW_SHOT = 'linear_intern_vit_6b_504_{iterations}_ade20k_bs16_lr4e-5_{share}'
_ROWS = (
    ('linear_probing', 'linear_intern_vit_6b_504_80k_ade20k_bs16_lr4e-5_frozen', 47.2),
    ('head_tuning', 'upernet_intern_vit_6b_504_80k_ade20k_bs16_lr4e-5_frozen', 54.9),
    ('full_tuning', 'upernet_intern_vit_6b_504_80k_ade20k_bs16_lr4e-5', 58.9),
    ('few_shot_1of16', _FEW_SHOT.format(iterations='5k', share='1of16'), 46.5),
    ('few_shot_1of8', _FEW_SHOT.format(iterations='10k', share='1of8'), 50.0),
    ('few_shot_1of4', _FEW_SHOT.format(iterations='20k', share='1of4'), 53.3),
    ('few_shot_1of2', _FEW_SHOT.format(iterations='40k', share='1of2'), 55.8),
    ('few_shot_1of1', _FEW_SHOT.format(iterations='80k', share='1of1'), 57.2),
)
for _recipe, _stem, _miou in _ROWS:
    _name = f'{_recipe}_internvit_6b_224px_ade20k'
    ZOO.register(_name, ReleasedModel(_name, 'ade20k', _stem, _miou))
