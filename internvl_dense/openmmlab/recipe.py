"""How a run differs from the recipe that its config file states."""

from __future__ import annotations

from typing import Any

from mmengine.config import Config

from internvl_dense.openmmlab.completion import complete, set_data_root

# Parts of a config that decide a result, and those of their settings that do not.
DECISIVE = ('model', 'optim_wrapper', 'param_scheduler', 'train_cfg')
NEUTRAL = ('model.backbone.weights', 'model.backbone.attention', 'model.backbone.save_frozen', 'train_cfg.val_interval')


def recipe_changes(config: Config) -> list[str]:
    """Settings that decide a result and differ from the config file, by dotted name."""
    if not config.filename:
        return []
    original = Config.fromfile(config.filename)
    root = config.get('data_root')
    if root and root != original.get('data_root'):  # other data are no other recipe
        set_data_root(original, root)
    original.launcher = config.get('launcher', 'none')
    complete(original)
    found = [name for key in DECISIVE for name in _differences(original.get(key), config.get(key), key)]
    return [name for name in found if not name.startswith(NEUTRAL)]


def _differences(old: Any, new: Any, name: str) -> list[str]:
    """Dotted names below `name` at which two values differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        pairs = {key: (old.get(key), new.get(key)) for key in (*old, *new)}
    elif isinstance(old, (list, tuple)) and isinstance(new, (list, tuple)) and len(old) == len(new):
        pairs = dict(enumerate(zip(old, new, strict=True)))
    else:
        return [] if old == new else [name]
    return [found for key, pair in pairs.items() for found in _differences(*pair, f'{name}.{key}')]
