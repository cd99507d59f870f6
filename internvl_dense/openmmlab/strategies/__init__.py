"""How a model is spread over processes; a config or `--strategy` names one."""

from internvl_dense.openmmlab.strategies import ddp, single  # noqa: F401  registers them
