"""The curves that a comparison reads: a run of ours, or a training log that the authors published."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from internvl_dense.backbones.fingerprint import file_sha256
from internvl_dense.backbones.locate import DEFAULT_FOLDER, describe_places, find_published
from internvl_dense.errors import UserError
from internvl_dense.evaluation.curves import SCALARS, Curve, read_scalars
from internvl_dense.evaluation.mmcv_log import read_mmcv_log
from internvl_dense.registry import closest
from internvl_dense.zoo import ZOO

PUBLISHED = 'published:'  # prefix of a cell of the zoo or of the path of a log


@dataclasses.dataclass(frozen=True)
class Source:
    """Curves and where they are from.

    Args:
        name: As the user gave it.
        curves: Name -> iteration -> value; scores in percent.
        files: Path -> sha256 of every file that was read.
        notes: What was wrong with the files.
    """

    name: str
    curves: dict[str, Curve]
    files: dict[str, str]
    notes: tuple[str, ...] = ()


def read_source(name: str) -> Source:
    """Reads `published:CELL`, `published:PATH`, a work directory or a scalars file.

    Raises:
        UserError: Unknown cell, its log is not on this machine, or the file holds no curves.
    """
    if name.startswith(PUBLISHED):
        path = _published_log(name.removeprefix(PUBLISHED))
        log = read_mmcv_log(path)
        return Source(name, log.curves, {str(path): file_sha256(path)}, tuple(log.notes()))
    path = Path(name)
    if path.is_file() and path.name.endswith(('.log', '.log.json')):
        raise UserError(f'{path}: a log of mmcv, not the scalars of a run; name it {PUBLISHED}{path}')
    curves = read_scalars(path)
    files = sorted(path.glob(SCALARS)) if path.is_dir() else [path]
    return Source(name, curves, {str(file): file_sha256(file) for file in files})


def _published_log(name: str) -> Path:
    if name in ZOO:
        return _log_of_cell(name)
    path = Path(name)
    if path.is_file():
        return path
    near = closest(name, ZOO.list())
    models = f'{"Nearest" if near else "Published"} models: {", ".join(near or ZOO.list())}'
    raise UserError(f'{PUBLISHED}{name}: neither a published model nor a file. {models}. '
                    f'Or {PUBLISHED}PATH of a training log of mmcv 1.x')


def _log_of_cell(cell: str) -> Path:
    row = ZOO.get(cell)
    path = find_published([row.log])
    if path is None:
        raise UserError(
            f'{cell}: its training log {row.log} is not in {describe_places()}. On a machine with network: '
            f'internvl-dense fetch {cell} --log --to {DEFAULT_FOLDER}. A file elsewhere: {PUBLISHED}PATH'
        )
    return path
