"""mmdet's own training tool in processes that talk over gloo; started by torchrun from test_mmdet_config.py.

python -m torch.distributed.run --nproc_per_node 2 gloo_train.py FOLDER TOOL ARGUMENTS...

mmengine selects a CUDA device before it opens a group, so the group is opened here. FOLDER gets the hash of each
process's weights after training.
"""

from __future__ import annotations

import hashlib
import json
import pathlib
import runpy
import sys
from typing import Any

import torch.distributed as dist
from mmengine.hooks import Hook
from mmengine.registry import HOOKS


@HOOKS.register_module()
class WriteHash(Hook):
    """Notes the iterations and one hash over names and values of the model, for each process."""

    def after_train(self, runner: Any) -> None:
        digest = hashlib.sha256()
        for name, value in runner.model.module.state_dict().items():
            digest.update(name.encode() + value.cpu().numpy().tobytes())
        found = {'weights': digest.hexdigest(), 'iterations': runner.iter, 'processes': dist.get_world_size()}
        (FOLDER / f'rank_{dist.get_rank()}.json').write_text(json.dumps(found))


FOLDER, TOOL = pathlib.Path(sys.argv[1]), sys.argv[2]
sys.argv = [TOOL, *sys.argv[3:]]
dist.init_process_group('gloo')
runpy.run_path(TOOL, run_name='__main__')
dist.destroy_process_group()
