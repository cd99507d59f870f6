"""Tests a published model with the published numerics and sets the result against the published figure."""

from __future__ import annotations

import dataclasses
import datetime
import json
import pathlib
import time
from argparse import Namespace
from typing import Any

import mmengine
import mmseg
import torch
from mmengine.config import Config
from mmengine.registry import DATASETS, init_default_scope

import internvl_dense
from internvl_dense.backbones.fingerprint import file_sha256
from internvl_dense.backbones.locate import DEFAULT_FOLDER, describe_places, find_published
from internvl_dense.errors import UserError
from internvl_dense.openmmlab import launch
from internvl_dense.openmmlab.configs import load_config
from internvl_dense.openmmlab.processes import planned_processes
from internvl_dense.openmmlab.recipe import recipe_changes
from internvl_dense.training.numerics import PUBLISHED
from internvl_dense.zoo import UNSEEN, ZOO, ReleasedModel

TOLERANCE = 0.1  # percentage points of mIoU: figures are published with one decimal
FILE = 'reproduced.json'


@dataclasses.dataclass(frozen=True)
class Reference:
    """A published figure, as the entry `published` of a config states it.

    Args:
        miou: mIoU in percent, single scale.
        images: Number of images that it was measured on.
        source: Where it is stated.
    """

    miou: float
    images: int
    source: str


@dataclasses.dataclass(frozen=True)
class Outcome:
    """One row for the table of verified models. mIoU in percent; the other entries say what was run, where and when."""

    cell: str
    published: float
    ours: float
    difference: float
    passed: bool
    images: int
    source: str
    numerics: str
    checkpoint: str
    sha256: str
    seconds: float
    device: str
    date: str
    versions: dict[str, str]

    def __str__(self) -> str:
        verdict = 'reproduced' if self.passed else 'NOT reproduced'
        return (f'{self.cell}: published {self.published:.2f}, ours {self.ours:.2f}, difference {self.difference:+.2f} '
                f'({verdict}: within {TOLERANCE} asked for), {self.images:,} images')


def reference_of(config: Config) -> Reference:
    """The published figure that a config states.

    Raises:
        UserError: It states none, or leaves part of it out.
    """
    entry = config.get('published')
    if not isinstance(entry, dict):
        raise UserError(f'{config.filename} states no published figure to compare with (published = {entry!r}). Cells '
                        f'with one: {", ".join(ZOO.list())}')
    missing = [key for key in ('mIoU', 'images', 'source') if key not in entry]
    if missing:
        raise UserError(f'{config.filename}: published = {dict(entry)} lacks {", ".join(missing)}')
    return Reference(float(entry['mIoU']), int(entry['images']), str(entry['source']))


def reproduce(args: Namespace) -> Outcome:
    """Checks checkpoint and data, tests, and writes the outcome as JSON into the work directory.

    Of several processes the first one reads the whole checkpoint for its checksum, and writes.

    Args:
        args: `cell`, `weights` (None: looked for where weights are), `data_root`, `out`, and those of the test command.

    Raises:
        UserError: The cell states no figure, something decisive was changed, the checkpoint is not the published one,
            or the data are not those of the figure.
    """
    config = load_config(Namespace(**{**vars(args), 'config': args.cell, 'weights': None, 'numerics': PUBLISHED.name}))
    reference = reference_of(config)
    changed = recipe_changes(config)
    if [name for name in changed if name != 'model.numerics']:
        raise UserError(f'a published model is tested as it was published, and this changes {", ".join(changed)}')
    cell = pathlib.Path(config.filename).stem
    row = ZOO.get(cell) if cell in ZOO else None
    checkpoint = args.weights or _find_checkpoint(cell, row)
    is_first = planned_processes(config.launcher)[0] == 0
    sha256 = _check_identity(checkpoint, row) if is_first else ''
    _check_images(config, reference)
    start = time.monotonic()
    metrics = launch.test_config(config, checkpoint, args.check_data)
    outcome = _outcome(cell, reference, metrics['mIoU'], str(checkpoint), sha256, time.monotonic() - start)
    if is_first:
        _write(outcome, pathlib.Path(args.out or pathlib.Path(config.work_dir, FILE)))
    return outcome


def _find_checkpoint(cell: str, row: ReleasedModel | None) -> str:
    if row is None:
        raise UserError(f'{cell} is no published model: name its checkpoint with --weights FILE')
    found = find_published([row.file])
    if found is None:
        raise UserError(f'{row.file} is not in {describe_places()}. On a machine with network: internvl-dense fetch '
                        f'{cell} --to {DEFAULT_FOLDER}. A file elsewhere: --weights FILE.')
    return str(found)


def _check_identity(checkpoint: str, row: ReleasedModel | None) -> str:
    digest = file_sha256(checkpoint)
    if row is not None and row.sha256 not in (None, digest):
        raise UserError(f'{checkpoint} is not the published file: its sha256 is {digest}, that of {row.file} '
                        f'{row.sha256}. Fetch it again.')
    known = UNSEEN if row is None or row.sha256 is None else 'as published'
    print(f'{checkpoint}: sha256 {digest} ({known})', flush=True)
    return digest


def _check_images(config: Config, reference: Reference) -> None:
    init_default_scope(config.get('default_scope', 'mmseg'))
    dataset = DATASETS.build({**config.test_dataloader.dataset, 'lazy_init': True})
    folder = pathlib.Path(dataset.data_prefix['img_path'])
    if not folder.is_dir():
        raise UserError(f'no folder {folder}: --data-root names the folder that holds '
                        f'{config.test_dataloader.dataset.data_prefix["img_path"]}')
    dataset.full_init()
    if len(dataset) != reference.images:
        raise UserError(f'{folder} holds {len(dataset):,} images; the figure was measured on {reference.images:,}. '
                        'internvl-dense prepare-data makes the folder from the archives and checks it.')


def _outcome(
    cell: str, reference: Reference, miou: float, checkpoint: str, sha256: str, seconds: float
) -> Outcome:
    difference = miou - reference.miou
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else 'CPU'
    versions = {module.__name__: str(module.__version__) for module in (internvl_dense, torch, mmengine, mmseg)}
    return Outcome(
        cell, reference.miou, miou, difference, abs(difference) <= TOLERANCE, reference.images, reference.source,
        PUBLISHED.name, checkpoint, sha256, round(seconds, 1), device, datetime.date.today().isoformat(), versions,
    )


def _write(outcome: Outcome, path: pathlib.Path) -> None:
    row: dict[str, Any] = dataclasses.asdict(outcome)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(row, indent=1, ensure_ascii=False) + '\n', encoding='utf-8')
    print(f'{outcome}\nrow: {path}', flush=True)
