"""The table of rules for segmentation data. A new check is a new row here."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from internvl_dense.data import image_rules, label_rules, name_rules
from internvl_dense.data.label_policy import LabelPolicy
from internvl_dense.data.rules import Problem, Rule, raise_on_problems, run_rules
from internvl_dense.data.split_files import SampleIndex

__all__ = ['RULES', 'check_dataset', 'check_split', 'raise_on_problems']

RULES: tuple[Rule[SampleIndex], ...] = (
    Rule('folder_missing', 'error', name_rules.folder_missing),
    Rule('no_images', 'error', name_rules.no_images),
    Rule('image_twice', 'error', name_rules.image_twice),
    Rule('name_not_found', 'error', name_rules.name_not_found),
    Rule('image_without_label', 'error', name_rules.image_without_label),
    Rule('label_without_image', 'warning', name_rules.label_without_image),
    Rule('image_unreadable', 'error', image_rules.image_unreadable),
    Rule('image_unusual', 'warning', image_rules.image_unusual),
    Rule('label_unreadable', 'error', label_rules.label_unreadable),
    Rule('label_has_colours', 'error', label_rules.label_has_colours),
    Rule('label_not_whole', 'error', label_rules.label_not_whole),
    Rule('label_lossy', 'error', label_rules.label_lossy),
    Rule('label_too_wide', 'error', label_rules.label_too_wide),
    Rule('label_out_of_range', 'error', label_rules.label_out_of_range),
    Rule('only_0_and_255', 'error', label_rules.only_0_and_255),
    Rule('size_differs', 'error', image_rules.size_differs),
    Rule('label_all_ignored', 'warning', label_rules.label_all_ignored),
    Rule('class_absent', 'warning', label_rules.class_absent),
    Rule('not_all_checked', 'note', name_rules.not_all_checked),
)


def check_split(index: SampleIndex, max_files: int | None = None) -> list[Problem]:
    """Runs every rule on one split; raises nothing.

    Args:
        index: The split.
        max_files: Read at most this many images and labels, evenly spread; a note in the result says so. Missing
            files are found over the whole split in any case.
    """
    return run_rules(RULES, index if max_files is None else replace(index, max_files=max_files))


def check_dataset(
    root: Path,
    policy: LabelPolicy,
    splits: tuple[str, ...] = ('training', 'validation'),
    max_files: int | None = None,
) -> list[Problem]:
    """Runs every rule on the splits of a data set in the ADE20K layout (.jpg images, .png labels); raises nothing.

    Args:
        root: Folder that holds `images/<split>` and `annotations/<split>`.
        policy: Classes and ids of the labels.
        splits: Names of the folders.
        max_files: Images and labels read of each split, as in `check_split`.
    """
    indexes = [SampleIndex(root / 'images' / split, root / 'annotations' / split, policy) for split in splits]
    return [problem for index in indexes for problem in check_split(index, max_files)]
