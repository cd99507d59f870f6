"""Config files: where they are, and what the command line lays over them."""

from __future__ import annotations

import pathlib
from argparse import Namespace
from typing import Any

from mmengine.config import Config

import internvl_dense
from internvl_dense.errors import UserError
from internvl_dense.openmmlab.completion import complete, set_data_root
from internvl_dense.openmmlab.processes import planned_processes
from internvl_dense.registry import unknown
from internvl_dense.training.numerics import FAST, get_numerics

PACKAGE = pathlib.Path(internvl_dense.__file__).parent
WORK_DIRS = pathlib.Path('work_dirs')
BATCH = 'train_dataloader.batch_size'


def configs_root() -> pathlib.Path:
    """The folder `configs/` of the checkout, or the copy that an installed package carries."""
    checkout = PACKAGE.parent / 'configs'
    return checkout if checkout.is_dir() else PACKAGE / '.mim' / 'configs'


def strategies() -> list[str]:
    """Names that `--strategy` accepts: the files of `configs/_base_/strategies`."""
    return sorted(path.stem for path in (configs_root() / '_base_' / 'strategies').glob('*.py'))


def find_config(name: str) -> pathlib.Path:
    """Path of a config: a file as given, or relative to `configs/`, with or without '.py', or its stem alone.

    Raises:
        UserError: No such file; the message names the closest one.
    """
    root = configs_root()
    for path in (pathlib.Path(name), root / name, root / f'{name}.py'):
        if path.is_file():
            return path
    by_stem = [path for path in root.rglob(f'{name}.py') if '_base_' not in path.parts] if '/' not in name else []
    if len(by_stem) == 1:
        return by_stem[0]
    known = [str(path.relative_to(root)) for path in root.rglob('*.py') if '_base_' not in path.parts]
    raise UserError(f'{unknown("config", name, known)} Looked in the working directory and in {root}.')


def load_config(args: Namespace) -> Config:
    """The config of a run: file, then strategy overlay, then the options of the command line, then what follows.

    Args:
        args: `config`, and where a command has them `work_dir`, `strategy`, `weights`, `numerics`, `data_root`, `amp`,
            `seed`, `launcher`, `cfg_options`.

    Raises:
        UserError: Unknown config, strategy or numerics, or a faulty file of class names.
    """
    path = find_config(args.config)
    config = Config.fromfile(path)
    if getattr(args, 'strategy', None):
        _overlay_strategy(config, args.strategy)
    _overlay_model(config, args)
    options = parse_options(args.cfg_options) if getattr(args, 'cfg_options', None) else {}
    config.merge_from_dict(options)
    config.launcher = getattr(args, 'launcher', None) or 'none'
    if BATCH not in options:
        _spread_batch(config)
    if getattr(args, 'amp', False):
        config.optim_wrapper.type = 'Bf16OptimWrapper'
    if getattr(args, 'seed', None) is not None:
        config.randomness = {**config.get('randomness', {}), 'seed': args.seed}
    config.work_dir = str(getattr(args, 'work_dir', None) or config.get('work_dir') or WORK_DIRS / path.stem)
    complete(config)
    return config


def _overlay_model(config: Config, args: Namespace) -> None:
    """Weights, numerics and data folder, each of which would be a longer option under its own name."""
    if getattr(args, 'weights', None):
        config.model.backbone.weights = args.weights
    if getattr(args, 'numerics', None):
        config.model.numerics = get_numerics(args.numerics).name
    if getattr(args, 'data_root', None):
        set_data_root(config, args.data_root)


def _spread_batch(config: Config) -> None:
    """Gives each process its share of the batch that a published figure rests on, where it can be divided."""
    whole = published_batch(config)
    if whole is None:
        return
    _, processes = planned_processes(config.launcher)
    if whole % processes == 0:
        config.train_dataloader.batch_size = whole // processes


def published_batch(config: Config) -> int | None:
    """Images that SyncBN must see at once under the numerics of this config, or None where any number will do."""
    numerics = config.get('model', {}).get('numerics', FAST.name)
    if 'train_dataloader' not in config or not get_numerics(numerics).whole_batch:
        return None
    batch: int | None = (config.get('auto_scale_lr') or {}).get('base_batch_size')
    return batch


def _overlay_strategy(config: Config, name: str) -> None:
    if name not in strategies():
        raise UserError(unknown('strategy', name, strategies()))
    config.merge_from_dict(Config.fromfile(configs_root() / '_base_' / 'strategies' / f'{name}.py').to_dict())


def parse_options(pairs: list[str]) -> dict[str, Any]:
    """`key=value` pairs as mmseg's tools read them: numbers, booleans, lists in brackets, all else text.

    Raises:
        UserError: A pair without '='.
    """
    from mmengine.config import DictAction

    wrong = [pair for pair in pairs if '=' not in pair]
    if wrong:
        raise UserError(f'--cfg-options {" ".join(wrong)}: each option is key=value, as in model.backbone.frozen=True')
    return {key: DictAction._parse_iterable(value) for key, value in (pair.split('=', 1) for pair in pairs)}
