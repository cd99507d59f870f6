"""One process for each device, gradients averaged."""

from __future__ import annotations

import atexit
import datetime
import gc
import os
from typing import Any

import torch
import torch.distributed as dist
from mmengine._strategy import DDPStrategy
from mmengine.device import get_device
from mmengine.dist import infer_launcher, init_dist, is_main_process
from mmengine.model import MMDistributedDataParallel
from mmengine.registry import STRATEGIES
from torch import nn

from internvl_dense.errors import UserError
from internvl_dense.openmmlab.processes import COMMAND, planned_processes
from internvl_dense.openmmlab.strategies.base import DenseStrategyMixin, pick_backend


@STRATEGIES.register_module()
class DenseDDP(DenseStrategyMixin, DDPStrategy):
    """Distributed data parallel on GPUs (NCCL) or CPUs (gloo)."""

    def _setup_env(self, *, launcher: str | None = None, **kwargs: Any) -> None:
        launcher = launcher or infer_launcher()
        if launcher == 'none':
            raise UserError(f'the strategy ddp needs processes that a launcher starts: {COMMAND}')
        planned_processes(launcher)
        super()._setup_env(launcher=launcher, **kwargs)

    def _setup_distributed(self, launcher: str = 'pytorch', backend: str | None = None, **kwargs: Any) -> None:
        backend = pick_backend(backend)
        if backend == 'gloo' and launcher == 'pytorch':
            # mmengine selects a CUDA device before it opens a group, which a machine without one cannot do.
            if 'timeout' in kwargs:
                kwargs['timeout'] = datetime.timedelta(seconds=kwargs['timeout'])
            dist.init_process_group(backend=backend, **kwargs)
        else:
            init_dist(launcher, backend, **kwargs)
        atexit.register(leave_group)

    def _wrap_model(self, model: nn.Module) -> nn.Module:
        model = model.to(get_device())
        on_gpu = torch.cuda.is_available()
        wrapper = {'broadcast_buffers': False, **(self.model_wrapper or {})}
        wrapper.pop('type', None)
        device_ids = [int(os.environ['LOCAL_RANK'])] if on_gpu else None
        return MMDistributedDataParallel(module=model, device_ids=device_ids, **wrapper)

    def save_checkpoint(self, filename: str, **kwargs: Any) -> None:
        """Rank 0 writes; the others wait until it has."""
        if is_main_process():
            super().save_checkpoint(filename, **kwargs)
        dist.barrier()


def leave_group() -> None:
    """Takes this process out of its group while Python still runs.

    Threads of the group hold the last tensors a moment longer than the call that sent them. Ended together with the
    interpreter, they abort a process whose work is done, and its launcher reports a failed run.
    """
    gc.collect()  # a model that still refers to the group would keep its threads alive
    if dist.is_initialized():
        dist.destroy_process_group()
