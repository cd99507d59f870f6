"""Which files of the sources become which of the data set, and whether all are there, by their lists alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from internvl_dense.data.prepare.entries import Entry, Source
from internvl_dense.data.prepare.layouts import SPLITS, Counts, Layout, Part, Selection, Split, Task
from internvl_dense.errors import UserError, problems

MAX_FAULTS = 20  # shown of one archive

# Name of a part -> stem -> the files that could become it.
Found = Mapping[str, Mapping[str, list[Entry]]]


def select(
    layout: Layout, sources: Sequence[Source], root: Path, counts: Counts, partial: bool = False
) -> Selection:
    """Finds every file of the data set and checks numbers and partners.

    Args:
        layout: The data set.
        sources: Where to look.
        root: The data set folder, whose files count as sources only where there are no others.
        counts: Images that make it whole.
        partial: Fewer will do: what has no partner is left out, and a split that lacks a part altogether.

    Raises:
        UserError: Unsafe archives, missing files, too many of them, files without partner, other releases; all at once.
    """
    found = _find(layout, sources, root)
    _refuse_unsafe(sources, found)
    stems = {part.name: frozenset(found[part.name]) for part in layout.parts}
    faults = [*_doubtful(found), *_too_large(layout, found)]
    notes: list[str] = []
    if partial:
        stems = _paired(layout, stems)
        notes = list(_partial_notes(layout, stems, counts))
        faults += _too_many(layout, stems, counts)
        faults += [] if any(stems.values()) else ['no split is complete: ' + '; '.join(_missing(layout, found))]
    else:
        faults += [*_wrong_numbers(layout, stems, counts), *_without_partner(layout, stems)]
    if faults:
        shown = problems(layout.name, [*_other_releases(layout, sources, found), *faults])
        raise UserError(f'{shown}\n{_advice(layout, partial)}')
    tasks = tuple(
        Task(part, stem, _preferred(found[part.name][stem]))
        for part in layout.parts for stem in sorted(stems[part.name]))
    return Selection(layout, counts, partial, stems, tasks, tuple(notes))


def _find(layout: Layout, sources: Sequence[Source], root: Path) -> Found:
    found: dict[str, dict[str, list[Entry]]] = {part.name: {} for part in layout.parts}
    for entry in (entry for source in sources for entry in source.entries):
        for part in layout.parts:
            match = part.pattern.search(entry.path)
            if match:
                found[part.name].setdefault(match['stem'], []).append(entry)
    return {
        part.name: {stem: _foreign(entries, root / part.path(stem)) for stem, entries in found[part.name].items()}
        for part in layout.parts}


def _foreign(entries: list[Entry], target: Path) -> list[Entry]:
    """Without the file that an earlier run made of one of the others, which a source folder may well contain."""
    if len(entries) == 1 or not target.exists():
        return entries
    return [entry for entry in entries if entry.file is None or not entry.file.samefile(target)] or entries


def _refuse_unsafe(sources: Sequence[Source], found: Found) -> None:
    """An archive that breaks a rule is used for nothing; one that merely lies in the folder does not matter."""
    used = {id(entry.source) for stems in found.values() for entries in stems.values() for entry in entries}
    unsafe = [source for source in sources
              if source.faults and (source.explicit or source.is_cut_short or id(source) in used)]
    rows = []
    for source in unsafe:
        rows += [f'{source.path}: {fault}' for fault in source.faults[:MAX_FAULTS]]
        more = len(source.faults) - MAX_FAULTS
        rows += [f'{source.path}: and {more} more'] if more > 0 else []
    if rows:
        raise UserError(problems('archives that are not as published; nothing was unpacked. Download them again from '
                                 'their official page', rows))


def _preferred(entries: list[Entry]) -> Entry:
    """A file in a folder, which may be linked, before one in an archive."""
    return min(entries, key=lambda entry: entry.file is None)


def _doubtful(found: Found) -> Iterator[str]:
    """Files that occur with several sizes: nobody can tell which is right."""
    for name, stems in found.items():
        several = [entries for entries in stems.values() if len({entry.size for entry in entries}) > 1]
        if several:
            shown = ', '.join(f'{entry} ({entry.size} bytes)' for entry in several[0])
            yield f'{name}: {len(several)} found with different sizes: {shown}; name only one of these sources'


def _too_large(layout: Layout, found: Found) -> Iterator[str]:
    """Files are read whole, several at a time."""
    for part in layout.parts:
        entries = [entry for entries in found[part.name].values() for entry in entries]
        large = [entry for entry in entries if entry.size > part.max_bytes]
        if large:
            yield (f'{part.name}: {len(large)} files of more than {part.max_bytes} bytes, which no published one has: '
                   f'{large[0]} ({large[0].size} bytes)')


def _wrong_numbers(layout: Layout, stems: Mapping[str, frozenset[str]], counts: Counts) -> Iterator[str]:
    for part in layout.parts:
        expected, number = part.published(counts), len(stems[part.name])
        if expected is not None and number != expected:
            yield f'{part.name}: {number:,} found, {expected:,} published{"" if number else f" (as {part.example})"}'


def _too_many(layout: Layout, stems: Mapping[str, frozenset[str]], counts: Counts) -> Iterator[str]:
    for part in layout.parts:
        expected, number = part.published(counts), len(stems[part.name])
        if expected is not None and number > expected:
            yield f'{part.name}: {number:,} found, more than the {expected:,} published'


def _without_partner(layout: Layout, stems: Mapping[str, frozenset[str]]) -> Iterator[str]:
    for part in layout.parts:
        alone = sorted(stems[part.name] - stems[part.partner]) if part.partner else []
        if alone and stems[part.partner]:
            shown = ', '.join(alone[:5]) + (', ...' if len(alone) > 5 else '')
            yield f'{part.name}: {len(alone):,} have no file among the {part.partner}: {shown}'


def _paired(layout: Layout, stems: Mapping[str, frozenset[str]]) -> dict[str, frozenset[str]]:
    """What a subset can use: stems that their partner has too, of splits that have every part."""
    paired = {part.name: stems[part.name] & stems[part.partner or part.name] for part in layout.parts}
    whole = {split for split in SPLITS if all(paired[part.name] for part in _parts(layout, split))}
    return {
        part.name: paired[part.name] if part.split is None or part.split in whole else frozenset()
        for part in layout.parts
    } if whole else {part.name: frozenset() for part in layout.parts}


def _partial_notes(layout: Layout, stems: Mapping[str, frozenset[str]], counts: Counts) -> Iterator[str]:
    rows = []
    for split in SPLITS:
        number = max(len(stems[part.name]) for part in _parts(layout, split) if not part.single)
        rows.append(f'{number:,} of {counts.of(split):,} {split} images')
    yield f'PARTIAL data set, for trying out only: {", ".join(rows)}'


def _missing(layout: Layout, found: Found) -> Iterator[str]:
    for split in SPLITS:
        absent = [part for part in _parts(layout, split) if not found[part.name]]
        yield f'{split} lacks {", ".join(f"{part.name} (as {part.example})" for part in absent) or "pairs"}'


def _other_releases(layout: Layout, sources: Sequence[Source], found: Found) -> Iterator[str]:
    """What was taken for the parts that are missing, once for each such release; archives before folders."""
    absent = [part.name for part in layout.parts if part.split and not found[part.name]]
    entries = [entry for source in reversed(sources) for entry in source.entries]
    for wrong in layout.wrong:
        if any(wrong.mistaken_for in name for name in absent):
            hit = next((entry for entry in entries if wrong.pattern.search(entry.path)), None)
            if hit is not None:
                yield f'{hit.source.path} ({hit.path}): {wrong.what}; {wrong.way_out}'


def _advice(layout: Layout, partial: bool) -> str:
    subset = '' if partial else ' For a subset to try things out, add --partial.'
    return f'What is needed: {layout.archives}.{subset}'


def _parts(layout: Layout, split: Split) -> list[Part]:
    return [part for part in layout.parts if part.split == split]
