"""Names of the classes of a data set, as a text file beside the images: one name a line, in order of their ids."""

from __future__ import annotations

import pathlib

from internvl_dense.data.label_policy import MAX_ID
from internvl_dense.errors import UserError, problems

FILE = 'classes.txt'


def read_class_names(path: str | pathlib.Path) -> tuple[str, ...]:
    """Class names of a file; line i names the class with id i.

    Raises:
        UserError: No such file, no names, an empty line between names, a name twice, or more than 255 of them.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise UserError(f'{path} is missing: a text file with the name of one class a line, the class with id 0 first. '
                        f'It lies beside the folders images and annotations.')
    names = [line.strip() for line in path.read_text(encoding='utf-8-sig').rstrip().splitlines()]
    faults = [f'line {number} is empty; every line names the class of its id' for number, name in enumerate(names, 1)
              if not name]
    faults += [f'{name!r} stands there {names.count(name)} times' for name in dict.fromkeys(names)
               if name and names.count(name) > 1]
    if not names:
        faults.append('it holds no names')
    if len(names) > MAX_ID:
        faults.append(f'{len(names)} names, and 8-bit labels tell {MAX_ID} classes and {MAX_ID} (ignored) apart')
    if faults:
        raise UserError(problems(f'class names in {path}', faults))
    return tuple(names)
