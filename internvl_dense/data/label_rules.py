"""Rules about the ids in label files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from internvl_dense.data.label_files import FLOAT_MODE, LabelFacts
from internvl_dense.data.label_policy import MAX_ID
from internvl_dense.data.rules import Finding
from internvl_dense.data.split_files import SampleIndex

# Ids named in one message.
SHOWN_IDS = 5


def label_unreadable(index: SampleIndex) -> Iterator[Finding]:
    """Labels can be decoded."""
    for label in index.labels:
        if label.unreadable:
            yield label.path, f'{label.unreadable}. Write it again or take the image out of the split.'


def label_has_colours(index: SampleIndex) -> Iterator[Finding]:
    """Labels have one channel."""
    for label in index.labels:
        if label.unreadable or label.is_index or label.mode == FLOAT_MODE:
            continue
        way_out = (
            'All channels are equal: save one of them.'
            if label.equal_channels
            else 'Replace each colour by its class id and save one 8-bit channel (or a palette PNG).'
        )
        yield label.path, f'a label has one channel of ids, this one is {label.mode}. {way_out}'


def label_not_whole(index: SampleIndex) -> Iterator[Finding]:
    """Labels hold whole numbers."""
    for label in index.labels:
        if label.mode == FLOAT_MODE:
            yield label.path, 'the label holds fractions (32-bit float). Save whole ids as an 8-bit PNG.'


def label_lossy(index: SampleIndex) -> Iterator[Finding]:
    """Labels are not JPEG."""
    for label in index.labels:
        if label.file_format == 'JPEG':
            yield label.path, 'JPEG changes ids along every edge. Export the label from its source as PNG.'


def label_too_wide(index: SampleIndex) -> Iterator[Finding]:
    """Label ids fit in 8 bits."""
    for label in index.labels:
        wide = {raw: count for raw, count in label.pixels.items() if not 0 <= raw <= MAX_ID}
        if wide:
            first = next(iter(wide))
            yield (
                label.path,
                f'{_ids(wide)} outside 0..{MAX_ID}: training reads 8 bits, where {first} becomes {first % 256}. '
                f'Save ids {index.policy.raw_id_rule()}.',
            )


def label_out_of_range(index: SampleIndex) -> Iterator[Finding]:
    """Every label id is a class or ignored."""
    policy = index.policy
    for label in index.labels:
        unknown = {raw: n for raw, n in label.pixels.items() if 0 <= raw <= MAX_ID and not policy.is_known(raw)}
        if unknown:
            yield (
                label.path,
                f'{_ids(unknown)} {"belongs" if len(unknown) == 1 else "belong"} to no class. '
                f'Allowed: {policy.raw_id_rule()}.{_shift_hint(index, label, unknown)}',
            )


def only_0_and_255(index: SampleIndex) -> Iterator[Finding]:
    """Labels are no black-and-white masks."""
    found = set(index.pixels)
    if MAX_ID not in found or not found <= {0, MAX_ID} or index.policy.num_classes < 2:
        return
    if index.policy.ignore_index == MAX_ID:
        yield (
            index.label_dir,
            f'all {len(index.labels)} labels read hold only 0 and {MAX_ID}, which is a black-and-white mask: '
            f'{MAX_ID} is ignored, so there is one class left to learn. Save the foreground as 1.',
        )


def label_all_ignored(index: SampleIndex) -> Iterator[Finding]:
    """A label has a pixel that counts."""
    for label in index.labels:
        ids = {index.policy.train_id(raw) for raw in label.pixels if 0 <= raw <= MAX_ID}
        if ids == {index.policy.ignore_index}:
            yield label.path, 'every pixel is ignored: nothing to learn or to score in this image.'


def class_absent(index: SampleIndex) -> Iterator[Finding]:
    """Every class occurs."""
    if not index.pixels:
        return
    policy = index.policy
    seen = {policy.train_id(raw) for raw in index.pixels if 0 <= raw <= MAX_ID}
    absent = [name for train_id, name in enumerate(policy.classes) if train_id not in seen]
    if absent:
        shown = ', '.join(absent[:10]) + (f' and {len(absent) - 10} more' if len(absent) > 10 else '')
        yield (
            index.label_dir,
            f'{len(absent)} of {policy.num_classes} classes are in none of the {len(index.labels)} labels read: '
            f'{shown}. Their IoU is undefined here.',
        )


def _ids(pixels: Mapping[int, int]) -> str:
    shown = [f'{raw} ({count} px)' for raw, count in list(pixels.items())[:SHOWN_IDS]]
    more = f' and {len(pixels) - SHOWN_IDS} more' if len(pixels) > SHOWN_IDS else ''
    return f'{"id" if len(pixels) == 1 else "ids"} {", ".join(shown)}{more}'


def _shift_hint(index: SampleIndex, label: LabelFacts, unknown: Mapping[int, int]) -> str:
    """Ids 1..C where 0..C-1 is expected: the sign of a forgotten reduce_zero_label."""
    if not index.policy.reduce_zero_label and set(unknown) == {index.policy.num_classes}:
        return ' If 0 means "no class" here, set reduce_zero_label=True.'
    return ''
