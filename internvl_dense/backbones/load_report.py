"""What loading a checkpoint did, and the error where it does not fit."""

from __future__ import annotations

import dataclasses
import fnmatch
import os
import re
from collections.abc import Iterable, Sequence

from internvl_dense.errors import UserError, problems

Shape = tuple[int, ...]

SHOWN = 6  # names of one kind in a message before it says "and N more"
_BLOCK = re.compile(r'blocks\.(\d+)\.(.+)')


class CheckpointMismatchError(UserError):
    """The weights do not fit the backbone; the message lists every difference and the variant that fits."""


@dataclasses.dataclass
class LoadReport:
    """The outcome of matching a checkpoint with a backbone. Keys are native unless the file's key has no native name.

    Args:
        path: The file or folder.
        dialect: Layout of its keys.
        variant: The backbone's variant.
        loaded: Keys that were taken over.
        num_parameters: Scalars in `loaded`.
        missing: Keys of the backbone that the file lacks.
        unexpected: Keys of the file that nothing explains.
        known_unused: Keys of the file that the dialect or the variant knows as no part of the trunk.
        dropped: Keys of blocks beyond the depth that the variant uses.
        dropped_class: What the file holds for a class token that the backbone does not have, in words.
        resized: (shape in the file, shape in the backbone) for each key that is resampled or loses its class slot.
        shape_mismatch: The same for keys that cannot be resampled.
        faults: Other contradictions, one sentence each.
        depths: Blocks in the file and in the backbone.
        file_keys, model_keys: All native keys of the two sides, to tell whole blocks from parts of them.
        fits: Variants that the file does fit, filled when it does not fit this one.
    """

    path: str
    dialect: str
    variant: str
    loaded: tuple[str, ...] = ()
    num_parameters: int = 0
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    known_unused: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    dropped_class: tuple[str, ...] = ()
    resized: dict[str, tuple[Shape, Shape]] = dataclasses.field(default_factory=dict)
    shape_mismatch: dict[str, tuple[Shape, Shape]] = dataclasses.field(default_factory=dict)
    faults: tuple[str, ...] = ()
    depths: tuple[int, int] = (0, 0)
    file_keys: tuple[str, ...] = dataclasses.field(default=(), repr=False)
    model_keys: tuple[str, ...] = dataclasses.field(default=(), repr=False)
    fits: tuple[str, ...] = ()

    def differences(self, allow_missing: Sequence[str] = ()) -> list[str]:
        """Everything that keeps the file from fitting, compactly; empty for a clean fit.

        Args:
            allow_missing: Glob patterns of keys that the file may lack.
        """
        missing = [key for key in self.missing if not matches(key, allow_missing)]
        found = [f'{text} unexpected' for text in compact(self.unexpected, self.file_keys)]
        found += [f'{text} missing' for text in compact(missing, self.model_keys)]
        found += _shape_lines(self.shape_mismatch)
        return [*found, *self.faults]

    def raise_unless_clean(self, allow_missing: Sequence[str] = ()) -> None:
        """Does nothing for a clean fit.

        Raises:
            CheckpointMismatchError: Anything is missing (unless allowed), unexpected or of another shape.
        """
        found = self.differences(allow_missing)
        if not found:
            return
        title = f'{os.path.basename(self.path.rstrip("/"))} does not fit {self.variant!r}'
        text = f'{title}: {found[0]}.' if len(found) == 1 else problems(title, found)
        separator = ' ' if len(found) == 1 else '\n'
        raise CheckpointMismatchError(text + separator + ' '.join(self._advice()))

    def _advice(self) -> list[str]:
        in_file, in_model = self.depths
        depth = [f'It has {in_file} blocks, the variant {in_model};'] if in_file != in_model else []
        if self.variant in self.fits:
            return [*depth, f'{self.variant!r} without overrides fits.']
        if self.fits:
            return [*depth, f'{" or ".join(map(repr, self.fits))} {"fits" if len(self.fits) == 1 else "fit"}.']
        advice = [*depth, 'no other registered variant fits.']
        if self.missing and not (self.unexpected or self.shape_mismatch or self.faults):
            advice.append('Keys that may be missing can be named in allow_missing.')
        return [advice[0][0].upper() + advice[0][1:], *advice[1:]]

    def __str__(self) -> str:
        rows = [
            ('dialect', [self.dialect]),
            ('loaded', [f'{len(self.loaded)} tensors, {self.num_parameters:,} parameters']),
            ('resized', [f'{key} {_size(a)} -> {_size(b)}' for key, (a, b) in self.resized.items()]),
            ('dropped', [*compact(self.dropped, self.file_keys), *self.dropped_class]),
            ('known, not used', _parts(self.known_unused)),
            ('missing', [f'{text} (allowed, initialised)' for text in compact(self.missing, self.model_keys)]),
        ]
        lines = [f'{self.variant} from {self.path}']
        width = max(len(name) for name, _ in rows) + 1
        lines += [f'  {name:<{width}} {", ".join(texts)}' for name, texts in rows if texts]
        return '\n'.join(lines)


def matches(key: str, patterns: Iterable[str]) -> bool:
    """Whether a key matches any of the glob patterns."""
    return any(fnmatch.fnmatchcase(key, pattern) for pattern in patterns)


def ranges(numbers: Iterable[int]) -> str:
    """Numbers as ranges: 0, 1, 2, 5 gives '0-2, 5'."""
    runs: list[list[int]] = []
    for number in sorted(set(numbers)):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ', '.join(str(first) if first == last else f'{first}-{last}' for first, last in runs)


def compact(keys: Iterable[str], universe: Iterable[str]) -> list[str]:
    """Keys as short texts: whole blocks as 'blocks 45-47', equal parts of blocks together, the rest by name.

    Args:
        keys: The keys to show.
        universe: All keys of the side they come from, which tells what a whole block is.
    """
    chosen, names = _by_block(keys)
    whole, _ = _by_block(universe)
    groups: dict[tuple[str, ...], list[int]] = {}
    for block, members in chosen.items():
        content = () if members == whole.get(block) else tuple(sorted(members))
        groups.setdefault(content, []).append(block)
    texts = []
    for content, blocks in groups.items():
        title = f'block{"s" if len(blocks) > 1 else ""} {ranges(blocks)}'
        texts.append(f'{title}: {_shown(content)}' if content else title)
    return texts + ([_shown(names)] if names else [])


def _by_block(keys: Iterable[str]) -> tuple[dict[int, set[str]], list[str]]:
    blocks: dict[int, set[str]] = {}
    others = []
    for key in keys:
        match = _BLOCK.fullmatch(key)
        if match:
            blocks.setdefault(int(match[1]), set()).add(match[2])
        else:
            others.append(key)
    return blocks, others


def _shown(names: Sequence[str]) -> str:
    more = f' and {len(names) - SHOWN} more' if len(names) > SHOWN else ''
    return ', '.join(names[:SHOWN]) + more


def _shape_lines(mismatch: dict[str, tuple[Shape, Shape]]) -> list[str]:
    """One line for each pair of shapes; the same tensor of many blocks shares a line."""
    groups: dict[tuple[str, Shape, Shape], list[int]] = {}
    for key, (in_file, in_model) in mismatch.items():
        match = _BLOCK.fullmatch(key)
        name = match[2] if match else key
        groups.setdefault((name, in_file, in_model), []).extend([int(match[1])] if match else [])
    lines = []
    for (name, in_file, in_model), blocks in groups.items():
        key = f'blocks.{{{ranges(blocks)}}}.{name}' if len(blocks) > 1 else name
        key = f'blocks.{blocks[0]}.{name}' if len(blocks) == 1 else key
        lines.append(f'{key}: file {in_file} / model {in_model}')
    return lines


def _size(shape: Shape) -> str:
    return 'x'.join(map(str, shape))


def _parts(keys: Iterable[str]) -> list[str]:
    """Unused keys counted by their first name, or by the first two below a model that holds the trunk."""
    counts: dict[str, int] = {}
    for key in keys:
        names = key.split('.')
        part = '.'.join(names[:2] if names[0] in ('backbone', 'model', 'module', 'vision_tower') else names[:1])
        counts[part] = counts.get(part, 0) + 1
    return [f'{part} ({count})' for part, count in counts.items()]
