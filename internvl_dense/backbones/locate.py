"""Where published files are looked for: on this machine only, never on the network."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Sequence

from internvl_dense.backbones.spec import BackboneSpec
from internvl_dense.errors import UserError

ENVIRONMENT = 'INTERNVL_DENSE_WEIGHTS'  # names a folder; several are parted as in PATH
DEFAULT_FOLDER = pathlib.Path('pretrained')  # where the publisher's instructions put the files
PUBLISHED, RANDOM = 'published', 'random'  # what `weights` may be beside a path


def places() -> list[pathlib.Path]:
    """Folders that are searched, in order; they need not exist."""
    named = [pathlib.Path(part).expanduser() for part in os.environ.get(ENVIRONMENT, '').split(os.pathsep) if part]
    return [*named, DEFAULT_FOLDER]


def find_published(names: Sequence[str]) -> pathlib.Path | None:
    """The first of `names` (files or folders) in the first place that has one, or None."""
    candidates = (place / name for place in places() for name in names)
    return next((path for path in candidates if path.exists()), None)


def describe_places() -> str:
    """The searched folders in words, absolute, with the variable that names them."""
    named = os.environ.get(ENVIRONMENT)
    variable = f'${ENVIRONMENT} ({named or "not set"})'
    return f'{variable} and ./{DEFAULT_FOLDER} ({DEFAULT_FOLDER.resolve()})'


def find_weights(spec: BackboneSpec, weights: str | os.PathLike[str] | None) -> pathlib.Path | None:
    """The file or folder that `weights` means for a variant; None for random values.

    Args:
        spec: The variant.
        weights: A path, 'published', 'random' or None.

    Raises:
        UserError: 'published', and the file is not on this machine. A path is returned as it is.
    """
    if weights is None or weights == RANDOM:
        return None
    return published_weights(spec) if weights == PUBLISHED else pathlib.Path(weights).expanduser()


def published_names(spec: BackboneSpec) -> list[str]:
    """Local names of the published weights of a variant: the single file, then the folder of the hub."""
    if spec.weights is None:
        return []
    folder = spec.weights.hf_repo.rpartition('/')[2]
    return [name for name in (spec.weights.file, folder) if name]


def published_weights(spec: BackboneSpec) -> pathlib.Path:
    """The published weights of a variant on this machine.

    Raises:
        UserError: The variant has none, or they are not here; says file, size, licence, the command that fetches them
            and where they were looked for.
    """
    if spec.weights is None:
        raise UserError(f"{spec.name} has no published weights: name a file with weights=PATH, or train from "
                        f"weights='{RANDOM}'")
    names = published_names(spec)
    found = find_published(names)
    if found is not None:
        return found
    raise UserError(
        f'{spec.name} needs {" or the folder ".join(names)} ({spec.weights.size_gb:g} GB, licence '
        f'{spec.weights.licence}), which is not in {describe_places()}. On a machine with network: '
        f'internvl-dense fetch {spec.name} --to {DEFAULT_FOLDER}. A file elsewhere: --weights PATH. '
        f'Random values: --weights {RANDOM}.'
    )
