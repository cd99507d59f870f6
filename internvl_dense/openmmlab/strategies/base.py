"""What every strategy of this project shares."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from internvl_dense.openmmlab import frozen_trunk
from internvl_dense.openmmlab.plain_state import hub_from_plain, hub_to_plain
from internvl_dense.openmmlab.strict_load import load_model_state, state_of, unwrap
from internvl_dense.safe_save import save_file

logger = logging.getLogger('internvl_dense')
StateDict = dict[str, Any]
Callback = Callable[[StateDict], None]


class DenseStrategyMixin:
    """Weights are drawn only when none follow, loads are strict, saved files are plain data.

    Attributes:
        checkpoint_follows: Set by the runner: a whole checkpoint will be loaded, so pretrained weights are not.
        reset_heads: Set by the runner: heads whose classifier does not come from that checkpoint.
    """

    checkpoint_follows = False
    reset_heads: Sequence[str] = ()
    _source = 'the checkpoint'
    model: nn.Module

    def _init_model_weights(self, model: nn.Module) -> nn.Module:
        if self.checkpoint_follows:
            return model
        initialised: nn.Module = super()._init_model_weights(model)  # type: ignore[misc]
        return initialised

    def load_checkpoint(self, filename: str, *, callback: Callback | None = None, **kwargs: Any) -> StateDict:
        """Reads a checkpoint into the model and returns the rest of it, with the message hub as mmengine wants it.

        Raises:
            UserError: It does not fit the model.
        """
        def before_load(checkpoint: StateDict) -> None:
            if 'state_dict' not in checkpoint:  # the names and tensors alone, or DeepSpeed's `module`
                weights = dict(state_of(checkpoint, filename))
                checkpoint.clear()
                checkpoint['state_dict'] = weights
            frozen_trunk.complete(checkpoint, self.model, filename)
            if callback is not None:
                callback(checkpoint)

        self._source = filename
        checkpoint: StateDict = super().load_checkpoint(filename, callback=before_load, **kwargs)  # type: ignore[misc]
        if 'message_hub' in checkpoint:
            checkpoint['message_hub'] = hub_from_plain(checkpoint['message_hub'])
        return checkpoint

    def load_model_state_dict(self, state_dict: StateDict, *, strict: bool = True, revise_keys: Any = ()) -> None:
        """Loads into the model; every key must fit, whatever `strict` says.

        Raises:
            UserError: Keys or shapes differ.
        """
        logger.info('%s', load_model_state(self.model, state_dict, self._source, self.reset_heads))

    def model_state_dict(self) -> StateDict:
        """State of the model without its wrapper: on the CPU, but for a trunk that will be left out of the file."""
        left_out = frozen_trunk.omitted(self.model)
        state = unwrap(self.model).state_dict()
        stays = {key for key in state if left_out and frozen_trunk.is_omitted(key, left_out[0])}
        return {key: value if key in stays else value.cpu() for key, value in state.items()}

    def save_checkpoint(
        self,
        filename: str,
        *,
        save_optimizer: bool = True,
        save_param_scheduler: bool = True,
        extra_ckpt: StateDict | None = None,
        callback: Callback | None = None,
    ) -> None:
        """Writes model, optimizer and schedules as plain data, under a temporary name until complete."""
        checkpoint: StateDict = {'state_dict': self.model_state_dict()}
        if save_optimizer and hasattr(self, 'optim_wrapper'):
            checkpoint['optimizer'] = self.optim_state_dict()  # type: ignore[attr-defined]
        if save_param_scheduler and hasattr(self, 'param_schedulers'):
            checkpoint['param_schedulers'] = self.scheduler_state_dict()  # type: ignore[attr-defined]
        checkpoint.update(extra_ckpt or {})
        checkpoint.setdefault('meta', {})['seed'] = self.seed  # type: ignore[attr-defined]
        if callback is not None:
            callback(checkpoint)
        frozen_trunk.trim(checkpoint, self.model)
        if 'message_hub' in checkpoint:
            checkpoint['message_hub'] = hub_to_plain(checkpoint['message_hub'])
        os.makedirs(os.path.dirname(filename) or '.', exist_ok=True)
        save_file(checkpoint, filename)


def pick_backend(backend: str | None) -> str:
    """NCCL with a GPU, gloo without; a config may still name one."""
    if backend is not None and (backend != 'nccl' or torch.cuda.is_available()):
        return backend
    return 'nccl' if torch.cuda.is_available() else 'gloo'
