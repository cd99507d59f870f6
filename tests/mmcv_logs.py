"""Training logs as mmcv 1.x writes them, in text and in JSON, and the same curves as a run of ours logs them."""

from __future__ import annotations

import json
import math
import pathlib
import random

MAX_ITERS = 8000
LOGGING, EVALUATION = 50, 1000
STAMP = '2023-12-21 10:11:12,131 - mmseg - INFO - '
HEADER = f"""{STAMP}Environment info:
------------------------------------------------------------
sys.platform: linux
PyTorch: 1.12.0
------------------------------------------------------------

{STAMP}Config:
optimizer = dict(type='AdamW', lr=4e-05)
lr_config = dict(policy='poly', warmup_iters=150)
evaluation = dict(
    interval={EVALUATION}, metric='mIoU', pre_eval=True, save_best='auto')
log_config = dict(interval=50, hooks=[dict(type='TextLoggerHook', by_epoch=False)])

"""


def lr(iteration: int, base: float = 4e-5, warmup: int = 150) -> float:
    """Rate at which an iteration (from 1) is trained: poly decay with linear warm-up."""
    done = iteration - 1
    rate = base * (1 - done / MAX_ITERS)
    return rate if done >= warmup else rate * (1 - (1 - done / warmup) * (1 - 1e-6))


def loss(iteration: int) -> float:
    return 0.3 + 4.0 * math.exp(-iteration / 900)


def miou(iteration: int) -> float:
    """Percent."""
    return 47.2 * (1 - math.exp(-iteration / 1500))


def noise(seed: int, spread: float):
    """Factors around 1, the same for the same seed."""
    generator = random.Random(seed)
    return lambda: 1 + generator.gauss(0, spread)


def train_line(iteration: int, rate: object, value: object) -> str:
    numbers = f'lr: {rate:.3e}' if isinstance(rate, float) else f'lr: {rate}'
    text = f'{value:.4f}' if isinstance(value, float) else str(value)
    return (f'{STAMP}Iter [{iteration}/{MAX_ITERS}]\t{numbers}, eta: 1 day, 2:03:04, time: 1.172, data_time: 0.011, '
            f'memory: 16411, decode.loss_ce: {text}, decode.acc_seg: 6.5182, aux.loss_ce: 1.8000, '
            f'aux.acc_seg: 3.1000, loss: {text}\n')


def score_line(bracket: int, score: float, scale: float = 0.01) -> str:
    """A line after an evaluation; `score` in percent."""
    return (f'{STAMP}Iter(val) [{bracket}]\taAcc: {scale * 83.18:.4f}, mIoU: {scale * score:.4f}, '
            f'mAcc: {scale * 59.5:.4f}, IoU.wall: {scale * 78.11:.4f}, IoU.crt screen: nan, Acc.wall: 0.8820\n')


def evaluation(iteration: int, score: float, bracket: int = 250, scale: float = 0.01) -> str:
    """All that is printed around an evaluation."""
    return (f'{STAMP}per class results:\n{STAMP}\n+-------+-------+-------+\n| Class |  IoU  |  Acc  |\n'
            f'|  wall | 78.11 | 88.2  |\n{STAMP}Summary:\n{STAMP}\n|  aAcc |  mIoU |  mAcc |\n| 83.18 | {score:.2f} '
            f'|  59.5 |\n{STAMP}Now best checkpoint is saved as best_mIoU_iter_{iteration}.pth.\n'
            f'{STAMP}Best mIoU is {score / 100:.4f} at {iteration} iter.\n{score_line(bracket, score, scale)}')


def text_log(last: int = MAX_ITERS, seed: int = 0, spread: float = 0.05, base: float = 4e-5) -> str:
    """A whole log up to an iteration, with noise on its losses."""
    factor = noise(seed, spread)
    lines = [HEADER]
    for at in range(LOGGING, last + 1, LOGGING):
        if at % EVALUATION == 0:
            lines.append(f'{STAMP}Saving checkpoint at {at} iterations\n')
        lines.append(train_line(at, lr(at, base), loss(at) * factor()))
        if at % EVALUATION == 0:
            lines.append(evaluation(at, miou(at)))
    return ''.join(lines)


def json_log(last: int = MAX_ITERS, seed: int = 0, spread: float = 0.05) -> str:
    """The same as `text_log` in the JSON form."""
    factor = noise(seed, spread)
    rows: list[dict[str, object]] = [{'env_info': 'sys.platform: linux', 'seed': 0, 'exp_name': 'linear.py'}]
    for at in range(LOGGING, last + 1, LOGGING):
        rows.append({'mode': 'train', 'epoch': 1, 'iter': at, 'lr': float(f'{lr(at):.3e}'), 'memory': 16411,
                     'decode.loss_ce': 1.0, 'loss': round(loss(at) * factor(), 4), 'time': 1.2})
        if at % EVALUATION == 0:
            rows.append({'mode': 'val', 'epoch': 1, 'iter': 250, 'lr': 0.0, 'aAcc': 0.8318,
                         'mIoU': round(miou(at) / 100, 4), 'mAcc': 0.595, 'IoU.wall': 0.78})
    return ''.join(json.dumps(row) + '\n' for row in rows)


def run_rows(last: int = MAX_ITERS, every: int = LOGGING, seed: int = 1, spread: float = 0.05, base: float = 4e-5
             ) -> list[dict[str, float]]:
    """What a run of ours logs on the same curves: scores in percent, `step` for the iteration."""
    factor = noise(seed, spread)
    rows: list[dict[str, float]] = []
    for at in range(every, last + 1, every):
        rows.append({'base_lr': lr(at), 'lr': lr(at, base), 'loss': loss(at) * factor(), 'iter': at, 'step': at})
        if at % EVALUATION == 0:
            rows.append({'mIoU': miou(at) + 0.1, 'mAcc': 59.0, 'aAcc': 83.0, 'time': 0.1, 'step': at})
    return rows


def write_run(work_dir: pathlib.Path, rows: list[dict[str, float]]) -> pathlib.Path:
    """A work directory as mmengine's local logger lays it out."""
    path = work_dir / '20260101_000000' / 'vis_data' / 'scalars.json'
    path.parent.mkdir(parents=True)
    path.write_text(''.join(json.dumps(row) + '\n' for row in rows), encoding='utf-8')
    return work_dir
