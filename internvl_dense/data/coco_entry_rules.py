"""Rules about the structure of a COCO json: its lists, ids and categories."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from internvl_dense.data.coco_index import LISTS, CocoIndex, annotation_gaps, category_gaps, image_gaps
from internvl_dense.data.file_pairs import nearest_names
from internvl_dense.data.rules import Finding
from internvl_dense.registry import closest

SHOWN = 5


def json_missing(index: CocoIndex) -> Iterator[Finding]:
    """The annotation file exists."""
    if index.ann_file.is_file():
        return
    folder = index.ann_file.parent
    names = sorted(path.name for path in folder.glob('*.json')) if folder.is_dir() else []
    near = nearest_names(index.ann_file.name, names) or names[:SHOWN]
    hint = f'{folder} holds {", ".join(near)}' if near else f'{folder} holds no .json file'
    hint = hint if folder.is_dir() else f'{folder} is no folder'
    yield index.ann_file, f'the annotation file does not exist; {hint}.'


def json_unreadable(index: CocoIndex) -> Iterator[Finding]:
    """The annotation file is json."""
    if index.loaded[1] and index.ann_file.is_file():
        yield index.ann_file, f'{index.loaded[1]}. Export or download it again.'


def json_structure(index: CocoIndex) -> Iterator[Finding]:
    """The json is an object with lists of images, annotations and categories."""
    content, fault = index.loaded
    if fault:
        return
    if not isinstance(content, dict):
        kind = 'a list, as files of results are' if isinstance(content, list) else type(content).__name__
        yield index.ann_file, f'it holds {kind}; annotations are an object with the lists {", ".join(LISTS)}.'
        return
    missing = [key for key in LISTS if not isinstance(content.get(key), list)]
    if missing:
        yield index.ann_file, f'no list {", ".join(missing)}; found: {", ".join(map(str, content)) or "nothing"}.'
    for key in LISTS:
        odd = len(content[key]) - len(index.entries(key)) if key not in missing else 0
        if odd:
            yield index.ann_file, f'{odd} of {len(content[key])} entries of {key} are no objects.'


def entry_incomplete(index: CocoIndex) -> Iterator[Finding]:
    """Images have id, file_name, width and height; annotations their three ids; categories id and name."""
    for key, gaps_of in (('images', image_gaps), ('annotations', annotation_gaps), ('categories', category_gaps)):
        for position, row in enumerate(index.entries(key)):
            gaps = gaps_of(row)
            if gaps:
                shown = ', '.join(f'{gap} = {str(row.get(gap))[:30]!r}' if gap in row else f'no {gap}' for gap in gaps)
                yield index.ann_file, f'{key}[{position}]: {shown}. Ids and sizes are whole numbers, names texts.'


def nothing_in_it(index: CocoIndex) -> Iterator[Finding]:
    """There are images and objects."""
    content = index.loaded[0]
    if isinstance(content, dict):
        empty = [key for key in LISTS if content.get(key) == []]
        if empty:
            yield index.ann_file, f'{" and ".join(empty)} empty: nothing to learn or to score.'


def id_twice(index: CocoIndex) -> Iterator[Finding]:
    """An id belongs to one image, one annotation or one category."""
    for key in LISTS:
        ids = (row['id'] for row in index.entries(key) if type(row.get('id')) is int)
        for value, count in _repeated(ids):
            yield index.ann_file, f'{count} {key} have the id {value}: only the last would count. Number them anew.'


def annotation_id_zero(index: CocoIndex) -> Iterator[Finding]:
    """No annotation has the id 0."""
    if any(item.id == 0 for item in index.annotations):
        yield index.ann_file, ('an annotation has the id 0, which pycocotools takes for "not matched": detections of '
                               'it count as false there. Count from 1.')


def annotation_without_image(index: CocoIndex) -> Iterator[Finding]:
    """Every annotation belongs to an image."""
    known = {row.get('id') for row in index.entries('images') if type(row.get('id')) is int}
    for item in index.annotations:
        if item.entry['image_id'] not in known:
            yield index.ann_file, f'{item}: no image has the id {item.entry["image_id"]}.'


def annotation_without_category(index: CocoIndex) -> Iterator[Finding]:
    """Every annotation belongs to a category."""
    known = {row.get('id') for row in index.entries('categories') if type(row.get('id')) is int}
    for item in index.annotations:
        if item.category_id not in known:
            yield index.ann_file, (f'{item}: no category has the id {item.category_id}, so the object is left out; '
                                   f'there are {_few(sorted(known))}.')


def category_name_twice(index: CocoIndex) -> Iterator[Finding]:
    """Category names differ."""
    for name, count in _repeated(row['name'] for row in index.entries('categories') if not category_gaps(row)):
        yield index.ann_file, f'{count} categories are called {name!r}: each would be a label of its own. Merge them.'


def class_without_category(index: CocoIndex) -> Iterator[Finding]:
    """Every class of the config is a category of the json."""
    names = list(index.categories.values())
    missing = [name for name in index.classes if name not in names]
    if missing and names:
        shown = ', '.join(f'{name!r}{_near(name, set(names) - set(index.classes))}' for name in missing[:SHOWN])
        more = f' and {len(missing) - SHOWN} more' if len(missing) > SHOWN else ''
        yield index.ann_file, (f'{len(missing)} of {len(index.classes)} classes of the config are no category: {shown}'
                               f'{more}. Labels count through the categories that are found, so every later class '
                               'would be another one. Set metainfo.classes to the names of the json, in its order.')


def category_without_class(index: CocoIndex) -> Iterator[Finding]:
    """Every category of the json is a class of the config."""
    objects = Counter(item.category_id for item in index.annotations)
    unused = {category: name for category, name in index.categories.items() if name not in index.classes}
    if unused:
        shown = _few([f'{name!r} ({objects[category]} objects)' for category, name in unused.items()])
        yield index.ann_file, (f'{len(unused)} of {len(index.categories)} categories are no class of the config, and '
                               f'their objects count as background: {shown}.')


def class_order(index: CocoIndex) -> Iterator[Finding]:
    """Classes and categories come in one order."""
    used = [name for name in index.categories.values() if name in index.classes]
    if used != list(index.classes) and sorted(used) == sorted(index.classes):
        label = next(label for label, name in enumerate(used) if name != index.classes[label])
        yield index.ann_file, (f'the config calls label {label} {index.classes[label]!r}, and by the order of the json '
                               f'it is {used[label]!r}: results would carry wrong names. Set metainfo.classes to '
                               f'({", ".join(map(repr, used[:SHOWN]))}{", ..." if len(used) > SHOWN else ""}).')


def class_absent(index: CocoIndex) -> Iterator[Finding]:
    """Every class has an object."""
    seen = {index.categories.get(item.category_id) for item in index.annotations}
    absent = [name for name in index.classes if name in index.categories.values() and name not in seen]
    if absent and index.annotations:
        yield index.ann_file, (f'{len(absent)} of {len(index.classes)} classes have no object: {_few(absent)}. Their '
                               'precision is undefined here.')


def _repeated(values: Iterable[Any]) -> list[tuple[Any, int]]:
    counts: Mapping[Any, int] = Counter(values)
    return [(value, count) for value, count in counts.items() if count > 1]


def _near(name: str, options: Iterable[str]) -> str:
    near = closest(name.lower(), {option.lower() for option in options}, 1)
    return next((f' (the json has {option!r})' for option in sorted(options) if [option.lower()] == near), '')


def _few(items: Iterable[Any]) -> str:
    rows = list(items)
    return ', '.join(map(str, rows[:SHOWN])) + (f' and {len(rows) - SHOWN} more' if len(rows) > SHOWN else '')
