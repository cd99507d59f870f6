"""What can be fetched: the published weights of a variant, or a published segmentor with its log."""

from __future__ import annotations

import dataclasses

from internvl_dense.backbones.spec import WeightsInfo
from internvl_dense.backbones.variants import VARIANTS
from internvl_dense.errors import UserError
from internvl_dense.registry import closest
from internvl_dense.zoo import LICENCE, REPOSITORY, UNSEEN, ZOO, ReleasedModel


@dataclasses.dataclass(frozen=True)
class Source:
    """Files of one repository that are fetched together, all of the same commit.

    Args:
        name: The variant or cell.
        repo: Repository on the Hugging Face hub.
        licence: Licence that the publisher states.
        files: Names of the files; empty where a whole folder is taken.
        folder: Local name of the folder, where one is taken.
        optional: Those of `files` that a server may lack.
        size_gb: Size in GB (1e9 bytes) as our table has it, of the first file or of the folder; None if it has none.
        sha256: Checksum of the first file as our table has it; None until someone has seen the file.
        is_cell: Whether the name is that of a published segmentor.
    """

    name: str
    repo: str
    licence: str
    files: tuple[str, ...] = ()
    folder: str | None = None
    optional: tuple[str, ...] = ()
    size_gb: float | None = None
    sha256: str | None = None
    is_cell: bool = False

    def checksum_of(self, file: str) -> str | None:
        """The checksum that our table has of a file, if it has one."""
        return self.sha256 if self.files[:1] == (file,) else None


@dataclasses.dataclass(frozen=True)
class Row:
    """A line of the list of what can be fetched; every field as text."""

    name: str
    file: str
    size: str
    licence: str
    miou: str
    sha256: str


def find_source(name: str, folder: bool = False, log: bool = False) -> Source:
    """What `name` stands for.

    Args:
        name: A variant or a cell.
        folder: Take the Hugging Face folder of the variant rather than its single file.
        log: Take only the training log of the cell.

    Raises:
        UserError: No such name, a variant without published weights, or an option that does not go with the name.
    """
    if name in ZOO:
        if folder:
            raise UserError(f'--folder: {name} is published as a single file, {ZOO.get(name).file}; leave --folder out')
        return _cell(ZOO.get(name), log)
    if name not in VARIANTS:
        raise UserError(_unknown(name))
    if log:
        raise UserError(f'--log: no training log was published for the variant {name}; only cells have one')
    weights = VARIANTS.get(name).weights
    if weights is None:
        raise UserError(f'{name} has no published weights. With weights: {", ".join(_variants())}')
    return _folder(name, weights) if folder or weights.file is None else _file(name, weights, weights.file)


def rows() -> list[Row]:
    """All that can be fetched: variants, then cells."""
    listed = []
    for name in _variants():
        weights = VARIANTS.get(name).weights
        assert weights is not None
        file = weights.file or f'{weights.hf_repo}/'
        listed.append(Row(name, file, f'{weights.size_gb:g} GB', weights.licence, '-', UNSEEN))
    for name in ZOO.list():
        cell = ZOO.get(name)
        size = 'not stated' if cell.size_gb is None else f'{cell.size_gb:g} GB'
        listed.append(Row(name, cell.file, size, LICENCE, f'{cell.miou:.1f}', cell.sha256 or UNSEEN))
    return listed


def _cell(cell: ReleasedModel, log: bool) -> Source:
    base = Source(cell.name, REPOSITORY, LICENCE, files=(cell.log,), is_cell=True)
    if log:
        return base
    return dataclasses.replace(
        base, files=(cell.file, cell.log), optional=(cell.log,), size_gb=cell.size_gb, sha256=cell.sha256)


def _file(name: str, weights: WeightsInfo, file: str) -> Source:
    # The single files of all variants lie where the segmentors do, not in the repository of the folder.
    return Source(name, REPOSITORY, weights.licence, files=(file,), size_gb=weights.size_gb)


def _folder(name: str, weights: WeightsInfo) -> Source:
    folder = weights.hf_repo.rpartition('/')[2]
    return Source(name, weights.hf_repo, weights.licence, folder=folder, size_gb=weights.size_gb)


def _variants() -> list[str]:
    return [name for name in VARIANTS.list() if VARIANTS.get(name).weights is not None]


def _unknown(name: str) -> str:
    near = [f'Nearest {kind}: {", ".join(names)}.' for kind, names in (
        ('variants', closest(name, _variants(), 2)), ('cells', closest(name, ZOO.list(), 2))) if names]
    return ' '.join([f'Unknown variant or cell {name!r}.', *near, 'internvl-dense fetch --list shows all.'])
