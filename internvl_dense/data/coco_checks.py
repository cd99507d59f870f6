"""The table of rules for detection data in COCO json. A new check is a new row here."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

from internvl_dense.data import coco_entry_rules, coco_image_rules, coco_shape_rules, image_rules
from internvl_dense.data.coco_image_rules import Pair
from internvl_dense.data.coco_index import CocoIndex
from internvl_dense.data.rules import Problem, Rule, raise_on_problems, run_rules

__all__ = ['PAIR_RULES', 'RULES', 'check_coco_split', 'check_coco_splits', 'raise_on_problems']

RULES: tuple[Rule[CocoIndex], ...] = (
    Rule('json_missing', 'error', coco_entry_rules.json_missing),
    Rule('json_unreadable', 'error', coco_entry_rules.json_unreadable),
    Rule('json_structure', 'error', coco_entry_rules.json_structure),
    Rule('entry_incomplete', 'error', coco_entry_rules.entry_incomplete),
    Rule('nothing_in_it', 'error', coco_entry_rules.nothing_in_it),
    Rule('id_twice', 'error', coco_entry_rules.id_twice),
    Rule('annotation_id_zero', 'warning', coco_entry_rules.annotation_id_zero),
    Rule('annotation_without_image', 'error', coco_entry_rules.annotation_without_image),
    Rule('annotation_without_category', 'error', coco_entry_rules.annotation_without_category),
    Rule('category_name_twice', 'error', coco_entry_rules.category_name_twice),
    Rule('class_without_category', 'error', coco_entry_rules.class_without_category),
    Rule('class_order', 'error', coco_entry_rules.class_order),
    Rule('category_without_class', 'warning', coco_entry_rules.category_without_class),
    Rule('class_absent', 'warning', coco_entry_rules.class_absent),
    Rule('box_malformed', 'error', coco_shape_rules.box_malformed),
    Rule('boxes_are_corners', 'error', coco_shape_rules.boxes_are_corners),
    Rule('box_negative', 'error', coco_shape_rules.box_negative),
    Rule('box_too_small', 'warning', coco_shape_rules.box_too_small),
    Rule('box_outside', 'error', coco_shape_rules.box_outside),
    Rule('box_over_edge', 'warning', coco_shape_rules.box_over_edge),
    Rule('area_missing', 'error', coco_shape_rules.area_missing),
    Rule('area_not_positive', 'warning', coco_shape_rules.area_not_positive),
    Rule('area_above_box', 'warning', coco_shape_rules.area_above_box),
    Rule('crowd_flag_wrong', 'error', coco_shape_rules.crowd_flag_wrong),
    Rule('only_crowds', 'error', coco_shape_rules.only_crowds),
    Rule('crowd_flag_missing', 'warning', coco_shape_rules.crowd_flag_missing),
    Rule('mask_missing', 'error', coco_shape_rules.mask_missing),
    Rule('mask_missing_in_part', 'warning', coco_shape_rules.mask_missing_in_part),
    Rule('polygon_malformed', 'error', coco_shape_rules.polygon_malformed),
    Rule('rle_malformed', 'error', coco_shape_rules.rle_malformed),
    Rule('mask_empty', 'warning', coco_shape_rules.mask_empty),
    Rule('mask_outside_box', 'error', coco_shape_rules.mask_outside_box),
    Rule('mask_away_from_box', 'warning', coco_shape_rules.mask_away_from_box),
    Rule('folder_missing', 'error', coco_image_rules.folder_missing),
    Rule('image_missing', 'error', coco_image_rules.image_missing),
    Rule('file_name_twice', 'warning', coco_image_rules.file_name_twice),
    Rule('image_unreadable', 'error', image_rules.image_unreadable),
    Rule('image_unusual', 'warning', image_rules.image_unusual),
    Rule('size_differs', 'error', coco_image_rules.size_differs),
    Rule('image_without_objects', 'note', coco_image_rules.image_without_objects),
    Rule('not_all_checked', 'note', coco_image_rules.not_all_checked),
)

PAIR_RULES: tuple[Rule[Pair], ...] = (Rule('image_in_both', 'warning', coco_image_rules.image_in_both),)


def check_coco_split(
    ann_file: Path, image_folder: Path, classes: Sequence[str], max_files: int | None = None, masks: bool = False
) -> list[Problem]:
    """Runs every rule on one split; raises nothing.

    Args:
        ann_file: The COCO json.
        image_folder: What its file names are relative to.
        classes: Class names of the config, in the order of labels.
        max_files: Read at most this many image files, evenly spread; a note in the result says so. Missing files and
            everything in the json are found in any case.
        masks: The config trains masks, so every object needs one.
    """
    return run_rules(RULES, CocoIndex(Path(ann_file), Path(image_folder), tuple(classes), masks, max_files))


def check_coco_splits(indexes: Sequence[CocoIndex]) -> list[Problem]:
    """Runs every rule on each split, and those for pairs of splits on any two of them; raises nothing."""
    alone = [problem for index in indexes for problem in run_rules(RULES, index)]
    return alone + [problem for pair in combinations(indexes, 2) for problem in run_rules(PAIR_RULES, pair)]
