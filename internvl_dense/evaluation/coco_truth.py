"""The objects that detections are compared with, from a COCO json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from internvl_dense.errors import UserError, problems

ANNOTATION_KEYS = ('image_id', 'category_id', 'bbox', 'area')
SHOWN = 5


@dataclass(frozen=True)
class GroundTruth:
    """Images and objects of a data set.

    Args:
        images: Image id -> its entry of the json (width and height for masks).
        annotations: Objects of the classes, numbered from 1: an evaluator that marks matches by the number of an
            object takes 0 for no match.
        classes: Name of the class of each label.
        category_ids: Category id of each label.
    """

    images: dict[int, Mapping[str, Any]]
    annotations: tuple[Mapping[str, Any], ...]
    classes: tuple[str, ...]
    category_ids: tuple[int, ...]


def ground_truth(content: Any, classes: Sequence[str], source: str, masks: bool = False) -> GroundTruth:
    """Takes over what an evaluation needs from the content of a COCO json.

    Label i is the i-th category of the json that is among `classes`, as mmdet's data sets number them. So the names
    must come in the same order, or every name would stand for another class.

    Args:
        content: The parsed json.
        classes: Names by label.
        source: The file, for messages.
        masks: Objects need a segmentation.

    Raises:
        UserError: The json lacks a part, its categories are not the classes, or objects lack an entry.
    """
    if not isinstance(content, dict) or not all(isinstance(content.get(key), list)
                                                for key in ('images', 'annotations', 'categories')):
        raise UserError(f'{source} is no COCO annotation file: an object with the lists images, annotations and '
                        'categories')
    category_ids = _category_ids(content['categories'], classes, source)
    images, known = {image['id']: image for image in content['images']}, set(category_ids)
    wanted = [annotation for annotation in content['annotations'] if annotation.get('category_id') in known]
    _require_entries(wanted, images, (*ANNOTATION_KEYS, *(('segmentation',) if masks else ())), source)
    numbered = tuple({**annotation, 'id': number} for number, annotation in enumerate(wanted, 1))
    return GroundTruth(images, numbered, tuple(classes), category_ids)


def _category_ids(categories: Sequence[Mapping[str, Any]], classes: Sequence[str], source: str) -> tuple[int, ...]:
    found = [category for category in categories if category['name'] in classes]
    names = [category['name'] for category in found]
    if names == list(classes):
        return tuple(category['id'] for category in found)
    missing = [name for name in classes if name not in names]
    if missing:
        reason = f'it lacks {", ".join(missing[:SHOWN])}'
    elif len(names) > len(set(names)):
        reason = 'a name stands there more than once'
    else:
        reason = f'their order there is {", ".join(names[:SHOWN])}, here {", ".join(classes[:SHOWN])}'
    raise UserError(f'the categories of {source} are not the {len(classes)} classes of the data set: {reason}. Labels '
                    'count through the categories of the json, so names would be swapped: set metainfo.classes to its '
                    'categories, in its order')


def _require_entries(
    annotations: Sequence[Mapping[str, Any]], images: Mapping[int, Any], keys: Sequence[str], source: str
) -> None:
    faults = []
    for key in keys:
        lacking = [annotation.get('id') for annotation in annotations if annotation.get(key) is None]
        if lacking:
            faults.append(f'{len(lacking)} of {len(annotations)} annotations have no {key}, such as id {lacking[0]}')
    astray = [annotation.get('id') for annotation in annotations if annotation.get('image_id') not in images]
    if astray and not faults:
        faults.append(f'{len(astray)} annotations belong to no image, such as id {astray[0]}')
    if faults:
        raise UserError(problems(source, faults))
