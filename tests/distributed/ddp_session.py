"""What two processes do together; started by torchrun from test_ddp.py. Each process writes what it found as JSON.

python -m torch.distributed.run --nproc_per_node 2 ddp_session.py FOLDER DATA
"""

from __future__ import annotations

import atexit
import hashlib
import json
import os
import pathlib
import sys
from typing import Any

import torch
import torch.distributed as dist

from internvl_dense.openmmlab.launch import build_runner
from internvl_dense.openmmlab.strategies import base
from internvl_dense.openmmlab.strict_load import unwrap
from internvl_dense.safe_load import load_file

# Not `from tests import`: mmsegmentation 1.2 installs a package of that name.
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import tiny_runs


def fingerprint(model: torch.nn.Module) -> str:
    """One hash over names and values."""
    digest = hashlib.sha256()
    for name, value in unwrap(model).state_dict().items():
        digest.update(name.encode() + value.cpu().numpy().tobytes())
    return digest.hexdigest()


def runner(name: str, folder: pathlib.Path, data: pathlib.Path, **changes: Any) -> Any:
    return build_runner(tiny_runs.tiny_config(name, folder, data, launcher='pytorch', **changes))


def resume(folder: pathlib.Path, data: pathlib.Path) -> dict[str, Any]:
    """Goes on after iteration 4, and counts who writes checkpoints."""
    written = []
    save_file = base.save_file
    base.save_file = lambda content, path: (written.append(str(path)), save_file(content, path))
    run = runner(tiny_runs.CONFIG, folder / 'resumed', data, resume=folder / 'first' / 'iter_4.pth',
                 train_cfg__max_iters=6)
    model = run.train()
    base.save_file = save_file
    return {'iterations': run.iter, 'weights': fingerprint(model), 'written': len(written)}


def test(folder: pathlib.Path, data: pathlib.Path) -> dict[str, Any]:
    """Metrics in percent of the checkpoint that one process tests too."""
    run = runner(tiny_runs.CONFIG, folder / 'tested', data, load_from=folder / 'first' / 'iter_4.pth')
    return run.test()


def frozen(folder: pathlib.Path, data: pathlib.Path) -> dict[str, Any]:
    """A linear head on a frozen trunk: parameters without gradient need no special flag of DDP."""
    run = runner(tiny_runs.LINEAR, folder / 'frozen', data, model__decode_head__channels=None,
                 model__backbone__weights='random')
    trunk = []
    run.call_hook = _with(run.call_hook, 'before_train', lambda: trunk.append(fingerprint(unwrap(run.model).backbone)))
    model = run.train()
    return {'unused': run.model.find_unused_parameters, 'weights': fingerprint(model),
            'trunk_kept': trunk == [fingerprint(unwrap(run.model).backbone)]}


def _with(call: Any, stage: str, action: Any) -> Any:
    def call_hook(name: str, **kwargs: Any) -> None:
        if name == stage:
            action()
        call(name, **kwargs)

    return call_hook


def one_step(folder: pathlib.Path, data: pathlib.Path) -> dict[str, Any]:
    """One step on this process's half of a batch that one process took as a whole."""
    given = load_file(folder / 'step.pth')
    run = runner(tiny_runs.CONFIG, folder / 'step', data, model__decode_head__dropout_ratio=0.0,
                 model__auxiliary_head__dropout_ratio=0.0)
    half = slice(2 * dist.get_rank(), 2 * dist.get_rank() + 2)
    model = tiny_runs.sgd_step(run, given['state_dict'], given['images'][half], given['labels'][half])
    if dist.get_rank() == 0:
        torch.save(model.state_dict(), folder / 'stepped.pth')
    return {'weights': fingerprint(model)}


def note_group(folder: pathlib.Path) -> None:
    """Whether the process is still in its group when all work is done."""
    (folder / f'in_group_{os.environ["RANK"]}.json').write_text(json.dumps(dist.is_initialized()))


def main() -> None:
    folder, data = map(pathlib.Path, sys.argv[1:])
    atexit.register(note_group, folder)  # runs after what is registered later
    found = {step.__name__: step(folder, data) for step in (resume, test, frozen, one_step)}
    (folder / f'rank_{os.environ["RANK"]}.json').write_text(json.dumps(found))


if __name__ == '__main__':
    main()
