"""Stand-in for mmcv's compiled extension, so that everything imports without a compiler.

mmcv.ops looks every operator up in `mmcv._ext`. Where that is not compiled, this module takes its place before anything
asks for it: the imports succeed, and an operator that is called and not provided names itself and the way out.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
import types
from collections.abc import Callable
from typing import NoReturn

from internvl_dense.errors import UserError

NAME = 'mmcv._ext'
BUILD = 'MAX_JOBS=8 pip install --no-cache-dir --no-build-isolation onedl-mmcv'


class _Extension(types.ModuleType):
    def __getattr__(self, name: str) -> Callable[..., NoReturn]:
        if name.startswith('__'):
            raise AttributeError(name)

        def missing(*_args: object, **_kwargs: object) -> NoReturn:
            raise NotImplementedError(f'mmcv operator {name!r} is not compiled here and has no stand-in. '
                                      f'Compile mmcv: {BUILD}')

        return missing


def _version() -> str:
    return 'not compiled'


def install() -> bool:
    """Puts the stand-in in place; does nothing where mmcv is compiled or the stand-in is there.

    Returns:
        Whether the stand-in was installed by this call.

    Raises:
        UserError: mmseg's or mmdet's models were imported before, with their operators missing for good.
    """
    if NAME in sys.modules or importlib.util.find_spec(NAME) is not None:
        return False
    late = [name for name in ('mmseg.models', 'mmdet.models') if name in sys.modules]
    if late:
        raise UserError(f'{late[0]} was imported before internvl_dense.openmmlab, so its heads lack the operators of '
                        'mmcv.ops. Import internvl_dense.openmmlab first (in your script, or in custom_imports of the '
                        'config before anything else).')
    extension = _Extension(NAME)
    extension.__spec__ = importlib.machinery.ModuleSpec(NAME, None)  # find_spec() is asked for it
    extension.get_compiler_version = extension.get_compiling_cuda_version = _version  # type: ignore[attr-defined]
    sys.modules[NAME] = extension
    return True
