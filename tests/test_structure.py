"""House rules that a machine can check, over the source text of the package."""

from __future__ import annotations

import ast
import pathlib
from collections.abc import Iterator

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
PACKAGE = ROOT / 'internvl_dense'
SOURCES = sorted(PACKAGE.rglob('*.py'))
TOOLS = sorted((ROOT / 'tools').rglob('*.py'))
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60
OPENMMLAB = {'mmcv', 'mmengine', 'mmseg', 'mmdet'}
GEOMETRY = {3200, 12800}  # widths of the 6B variants
SIDE_EFFECTS = {'print', 'warn', 'simplefilter', 'filterwarnings', 'set_default_dtype', 'set_default_device'}
ABSENT = {'ImportError', 'ModuleNotFoundError', 'Exception', 'BaseException'}

Finding = tuple[int, str]


def long_files(text: str) -> Iterator[Finding]:
    lines = len(text.splitlines())
    if lines > MAX_FILE_LINES:
        yield lines, f'{lines} lines, {MAX_FILE_LINES} allowed'


def long_functions(text: str) -> Iterator[Finding]:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > MAX_FUNCTION_LINES:
                yield node.lineno, f'{node.name} has {lines} lines, {MAX_FUNCTION_LINES} allowed'


def swallowed_errors(text: str) -> Iterator[Finding]:
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.ExceptHandler):
            continue
        inert = all(isinstance(step, ast.Pass) or _is_constant(step) for step in node.body)
        if node.type is None:
            yield node.lineno, 'bare except'
        elif inert:
            yield node.lineno, 'an error is swallowed'
        elif _is_flag(node):
            yield node.lineno, 'a missing package becomes a silent flag; look for it where it is used'


def _is_constant(step: ast.stmt) -> bool:
    return isinstance(step, ast.Expr) and isinstance(step.value, ast.Constant)


def _is_flag(node: ast.ExceptHandler) -> bool:
    """An import error answered by nothing but a constant, such as `HAS_X = False` or `x = None`."""
    caught = {name.id for name in ast.walk(node.type or node) if isinstance(name, ast.Name)}
    only_constants = all(isinstance(step, ast.Assign) and isinstance(step.value, ast.Constant) for step in node.body)
    return bool(caught & ABSENT) and only_constants


def openmmlab_imports(text: str) -> Iterator[Finding]:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            modules = [node.module or '']
        else:
            continue
        yield from ((node.lineno, f'imports {name}') for name in modules if name.split('.')[0] in OPENMMLAB)


def geometry_numbers(text: str) -> Iterator[Finding]:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Constant) and type(node.value) is int and node.value in GEOMETRY:
            yield node.lineno, f'the number {node.value} belongs in backbones/variants.py'


def side_effects(text: str) -> Iterator[Finding]:
    """Calls that an import would make: print, warnings.warn, filters, default dtype or device."""
    for step in _run_by_import(ast.parse(text).body):
        for node in ast.walk(step):
            if isinstance(node, ast.Call):
                called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, 'id', '')
                if called in SIDE_EFFECTS:
                    yield node.lineno, f'{called}() runs on import'


def _run_by_import(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    for step in body:
        if isinstance(step, ast.ClassDef):
            yield from _run_by_import(step.body)
        elif not isinstance(step, ast.FunctionDef | ast.AsyncFunctionDef) and not _is_main_guard(step):
            yield step


def _is_main_guard(step: ast.stmt) -> bool:
    return isinstance(step, ast.If) and '__main__' in ast.dump(step.test)


def outside(place: str) -> list[pathlib.Path]:
    return [path for path in SOURCES if not path.is_relative_to(PACKAGE / place)]


# Rule -> (files it is for, what it allows), and code that breaks it once, so that no rule can pass for nothing.
RULES = {
    long_files: (SOURCES, 'x = 1\n' * (MAX_FILE_LINES + 1)),
    long_functions: (SOURCES + TOOLS, 'def f():\n' + '    x = 1\n' * MAX_FUNCTION_LINES),
    swallowed_errors: (SOURCES + TOOLS, 'try:\n    f()\nexcept ValueError:\n    pass\n'),
    openmmlab_imports: (outside('openmmlab'), 'def f():\n    import mmcv.ops\n'),
    geometry_numbers: (outside('backbones/variants.py'), 'width = 3200\n'),
    side_effects: (SOURCES, 'class A:\n    print(1)\n'),
}


@pytest.mark.parametrize('rule', RULES, ids=lambda rule: rule.__name__)
def test_rule_holds(rule):
    found = [
        f'{path.relative_to(ROOT)}:{line}: {message}'
        for path in RULES[rule][0]
        for line, message in rule(path.read_text(encoding='utf-8'))
    ]
    assert not found, '\n'.join(found)


@pytest.mark.parametrize('rule', RULES, ids=lambda rule: rule.__name__)
def test_rule_finds_its_breach(rule):
    assert len(list(rule(RULES[rule][1]))) == 1


@pytest.mark.parametrize(
    'code',
    ['try:\n    f()\nexcept:\n    raise\n', 'try:\n    import x\nexcept ImportError:\n    x = None\n'],
)
def test_other_swallowed_errors(code: str):
    assert list(swallowed_errors(code))


def test_reported_errors_are_fine():
    code = "try:\n    f()\nexcept ValueError as error:\n    raise UserError('x') from error\n"
    assert not list(swallowed_errors(code))


def test_every_package_folder_has_an_init():
    folders = {path.parent for path in SOURCES}
    missing = sorted(str(f.relative_to(ROOT)) for f in folders if not (f / '__init__.py').exists())
    assert not missing, f'a wheel would lack {missing}'
