"""Finds the images that a user names as files, folders and patterns, and gives each a name for what is made of it."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from internvl_dense.data.file_pairs import walk_files
from internvl_dense.errors import UserError, problems

# What is looked for in a folder. A file that is named outright is taken with any ending.
IMAGE_SUFFIXES = ('.bmp', '.jpeg', '.jpg', '.pgm', '.png', '.ppm', '.tif', '.tiff', '.webp')
WILDCARDS = frozenset('*?[')


@dataclass(frozen=True)
class ImageInputs:
    """Images by name.

    Args:
        root: The deepest folder that holds all inputs, absolute.
        images: Name -> absolute path, sorted by name. A name is the path below `root` without suffix, with '/' between
            folders. Images that share folder and stem (a.jpg, a.png) keep their suffix: 'a.jpg', 'a.png'.
    """

    root: Path
    images: dict[str, Path]


def find_images(inputs: Sequence[str], skipped: Sequence[Path] = ()) -> ImageInputs:
    """Images of all inputs, each once.

    Args:
        inputs: Files, folders (searched with all folders below them; hidden files are left out), and shell patterns,
            in which '**' stands for any depth of folders.
        skipped: Folders that are not searched, such as those of earlier results.

    Raises:
        UserError: Inputs that match nothing, all at once; or two images that would still share a name.
    """
    roots, files, missing = [], [], []
    for text in inputs:
        base, matches = _expand(text)
        found = [file for match in matches for file in _files(match, skipped)]
        if not found:
            missing.append(_nothing_found(text, base, matches))
        roots.append(base)
        files += found
    if missing:
        raise UserError(problems('no images to read', missing))
    root = Path(os.path.commonpath(roots))
    return ImageInputs(root, _names(root, dict.fromkeys(files)))


def _expand(text: str) -> tuple[Path, list[Path]]:
    """The folder that names are relative to, and the files and folders that an input stands for; all absolute."""
    path = Path(os.path.abspath(os.path.expanduser(text)))
    if path.exists() or not WILDCARDS & set(text):
        return (path if path.is_dir() else path.parent), [path]
    fixed = next(parent for parent in path.parents if not WILDCARDS & set(str(parent)))
    return fixed, [Path(match) for match in sorted(glob.glob(str(path), recursive=True))]


def _files(path: Path, skipped: Sequence[Path]) -> list[Path]:
    if not path.is_dir():
        return [path] if path.is_file() else []
    shut = [Path(os.path.abspath(folder)) for folder in skipped]
    return sorted(
        file for file in walk_files(path)
        if file.suffix.lower() in IMAGE_SUFFIXES and not file.name.startswith('.')
        and not any(folder in file.parents for folder in shut)
    )


def _nothing_found(text: str, base: Path, matches: Sequence[Path]) -> str:
    if any(match.is_dir() for match in matches):
        return f'{text}: no file below it ends in {", ".join(IMAGE_SUFFIXES)}'
    if WILDCARDS & set(text):
        return f'{text}: nothing matches this pattern in {base}'
    return f'{text}: no such file or folder (working directory {os.getcwd()})'


def _names(root: Path, files: Iterable[Path]) -> dict[str, Path]:
    groups: dict[str, list[Path]] = {}
    for file in files:
        groups.setdefault(file.relative_to(root).with_suffix('').as_posix(), []).append(file)
    named = [
        (stem if len(group) == 1 else file.relative_to(root).as_posix(), file)
        for stem, group in groups.items() for file in group
    ]
    images = dict(sorted(named))
    if len(images) < len(named):
        lost = [f'{file} and {images[name]} are both {name!r}' for name, file in named if images[name] != file]
        raise UserError(problems('images that share a name; move one of each', lost))
    return images
