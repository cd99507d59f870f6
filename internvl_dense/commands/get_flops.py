"""Count the floating-point operations of one forward pass; no weights and no memory are needed."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from internvl_dense.commands import _options

TERA = 1e12


def build_parser() -> argparse.ArgumentParser:
    """Arguments of the command."""
    parser = argparse.ArgumentParser(prog='get_flops', description=__doc__)
    _options.add_config(parser)
    _options.add_model(parser)
    parser.add_argument('--shape', type=int, nargs='+', default=None, metavar='PIXELS',
                        help='height and width, or one side of a square (default: the crop of the config)')
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    args = build_parser().parse_args(argv)
    from internvl_dense.openmmlab.configs import load_config
    from internvl_dense.openmmlab.launch import build_model_on_meta
    from internvl_dense.openmmlab.summary import count_parameters

    config = load_config(args)
    size = _size(args.shape, config)
    model = build_model_on_meta(config).eval()
    total, trainable = count_parameters(model)
    print(f'input {size[0]} x {size[1]} px, one image; 1 multiply-add = 2 operations')
    for name, flops in _flops(model, size).items():
        print(f'{name:>12}: {flops / TERA:10.4f} TFLOP')
    if not is_segmentor(model):
        print('heads of a detector work on as many regions as an image has, and are left out')
    print(f'{"parameters":>12}: {total:,} ({trainable:,} trainable), auxiliary head left out')
    return 0


def _size(shape: list[int] | None, config: Any) -> tuple[int, int]:
    from internvl_dense.errors import UserError

    if shape is None:
        size = config.model.get('data_preprocessor', {}).get('size') or config.model.test_cfg.get('crop_size')
        if size is None:
            raise UserError('this config names no crop size: give --shape HEIGHT WIDTH')
        return int(size[0]), int(size[1])
    if len(shape) > 2:
        raise UserError(f'--shape {shape}: give one side or height and width')
    return shape[0], shape[-1]


def is_segmentor(model: Any) -> bool:
    """Whether the whole model runs on shapes alone."""
    return hasattr(model, 'decode_head')


def _flops(model: Any, size: tuple[int, int]) -> dict[str, float]:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    image = torch.empty(1, 3, *size, device='meta')
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        model(image, mode='tensor') if is_segmentor(model) else model.extract_feat(image)
    counts = counter.get_flop_counts()
    root = f'{type(model).__name__}.'
    parts = {}
    for name in ('backbone', 'neck'):  # a part that is called by itself goes by the name of its class
        parts[name] = counts.get(root + name) or counts.get(type(getattr(model, name, None)).__name__, {})
    table = {name: float(sum(ops.values())) for name, ops in parts.items() if ops}
    total = float(counter.get_total_flops())
    if not is_segmentor(model):
        return {**table, 'total': total}
    # mmseg calls its head's forward directly, which no module hook sees.
    return {**table, 'decode_head': total - sum(table.values()), 'total': total}
