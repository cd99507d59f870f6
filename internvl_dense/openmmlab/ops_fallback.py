"""Stand-in for mmcv's compiled extension, so that everything imports without a compiler.

mmcv.ops looks every operator up in `mmcv._ext`. Where that is not compiled, this module takes its place before anything
asks for it: the imports succeed, the operators of `ext_ops` compute, and one that is called and not provided names
itself and the way out.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import sys
import types
from collections.abc import Callable
from typing import NoReturn

from internvl_dense.errors import UserError
from internvl_dense.openmmlab.ext_ops import OPERATORS
from internvl_dense.openmmlab.plain_layout import require_rows

NAME = 'mmcv._ext'
MODELS = 'mmseg.models'
# Its modules that look up operators, or mmdetection's models, while they are imported.
USERS = frozenset(f'{MODELS}.decode_heads.{name}_head' for name in (
    'cc', 'mask2former', 'maskformer', 'point', 'psa', 'san'))
# mmdetection's packages whose modules put an error in the place of each operator that is not there when they are
# imported. Without the stand-in `import mmdet.models` fails, but what it imported until then stays for later imports.
DETECTION = ('mmdet.models', 'mmdet.structures')
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
    """Puts the stand-in in place; where mmcv is compiled, its operators stay, see `plain_layout`.

    What was imported before and looked operators up stays without them for good; see `require_operators` and
    `require_detection`.

    Returns:
        Whether the stand-in was installed by this call.
    """
    if NAME in sys.modules or importlib.util.find_spec(NAME) is not None:
        extension = importlib.import_module(NAME)
        if not isinstance(extension, _Extension):
            require_rows(extension, OPERATORS)
        return False
    extension = _Extension(NAME)
    extension.__spec__ = importlib.machinery.ModuleSpec(NAME, None)  # find_spec() is asked for it
    extension.get_compiler_version = extension.get_compiling_cuda_version = _version  # type: ignore[attr-defined]
    for name, operator in OPERATORS.items():
        setattr(extension, name, operator)
    extension.came_late = _imported_before()  # type: ignore[attr-defined]
    sys.modules[NAME] = extension
    return True


def _imported_before() -> frozenset[str]:
    """Of mmseg's models and mmdetection, those that are loaded by now."""
    detection = any(name == package or name.startswith(f'{package}.') for name in sys.modules for package in DETECTION)
    return frozenset({'mmdet'} if detection else ()) | ({MODELS} & sys.modules.keys())


def _came_after(package: str) -> bool:
    return package in getattr(sys.modules.get(NAME), 'came_late', ())


def require_operators(head: type) -> None:
    """Refuses a head that was imported before the operators it uses.

    Raises:
        UserError: It was, so parts of it are missing and it would do something else than its name says.
    """
    if _came_after(MODELS) and any(cls.__module__ in USERS for cls in head.__mro__):
        raise UserError(f'{MODELS} was imported before internvl_dense.openmmlab, so {head.__name__} lacks the '
                        'operators of mmcv.ops. Import internvl_dense.openmmlab first (in your script, or in '
                        'custom_imports of the config before anything else).')


def require_detection() -> None:
    """Refuses detection where mmdetection's modules were imported before the operators they use.

    Raises:
        UserError: They were, so their operators raise that mmcv is to be compiled, although they are here.
    """
    if _came_after('mmdet'):
        raise UserError('mmdet (or mmseg.models, which imports it) was imported before internvl_dense.openmmlab, so '
                        'its models lack the operators of mmcv.ops. Import internvl_dense.openmmlab first (in your '
                        'script, or in custom_imports of the config before anything else).')
