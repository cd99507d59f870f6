"""Few-shot subsets: the same images for the same seed, written down as a list."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

from internvl_dense.errors import UserError

RULE = 'names sorted, shuffled by random.Random(seed), the first count kept'


def few_shot_names(
    names: Sequence[str], fraction: str | Fraction | None = None, *, count: int | None = None, seed: int = 0
) -> list[str]:
    """Draws a subset of `names`, in drawing order: a smaller subset of the same seed is the beginning of a larger one.

    The names are sorted, shuffled by a generator of its own seeded with `seed`, and the first k kept. This is the
    rule of the published few-shot runs, whose lists were not: theirs came from the run's global generator.

    Args:
        names: Names of all training images, in any order.
        fraction: Share to keep, as '1/16' or `Fraction(1, 16)`; k = floor(share * number of names), which
            makes 1263, 2526, 5052 and 10105 of ADE20K's 20210 for 1/16, 1/8, 1/4 and 1/2.
        count: k itself, in place of the fraction.
        seed: Seed of the shuffle.

    Raises:
        UserError: Not exactly one of fraction and count, a k outside 1..number of names, or a name given twice.
    """
    if (fraction is None) == (count is None):
        raise UserError(f'a few-shot subset needs a fraction or a count, got fraction={fraction}, count={count}')
    ordered = sorted(names)
    if len(set(ordered)) < len(ordered):
        twice = [name for name, following in pairwise(ordered) if name == following]
        raise UserError(f'names must be unique, given more than once: {", ".join(twice[:5])}')
    kept = count if count is not None else int(len(ordered) * _share(fraction))
    if not 1 <= kept <= len(ordered):
        raise UserError(f'{fraction or count} of {len(ordered)} names are {kept}: between 1 and {len(ordered)} needed')
    random.Random(seed).shuffle(ordered)
    return ordered[:kept]


def write_list(path: Path, names: Sequence[str], *, seed: int, total: int) -> None:
    """Writes one name a line to `path`, and how they were drawn to the .json file beside it.

    The list holds nothing but names, because mmseg takes every line of an `ann_file` for an image.
    """
    path.write_text(''.join(f'{name}\n' for name in names), encoding='utf-8')
    record = {'seed': seed, 'count': len(names), 'of': total, 'rule': RULE}
    record_path(path).write_text(json.dumps(record, indent=1) + '\n', encoding='utf-8')


def record_path(path: Path) -> Path:
    """Where `write_list` notes seed and count."""
    return path.with_suffix('.json')


def read_list(path: Path) -> list[str]:
    """Names in a list file, one a line.

    Raises:
        UserError: No such file, no name in it, or a comment or empty line, which mmseg would take for a name.
    """
    if not path.is_file():
        raise UserError(f'{path}: no such list of names')
    names = [line.strip() for line in path.read_text(encoding='utf-8').splitlines()]
    wrong = [number for number, name in enumerate(names, 1) if not name or name.startswith('#')]
    if wrong:
        raise UserError(f'{path}: lines {wrong[:5]} are empty or comments; every line must be an image name')
    if not names:
        raise UserError(f'{path}: the list holds no names; one image name without suffix a line')
    return names


def _share(fraction: str | Fraction | None) -> Fraction:
    try:
        return Fraction(fraction or 0)
    except (ValueError, ZeroDivisionError):
        raise UserError(f"fraction {fraction!r}: write it as '1/16'") from None
