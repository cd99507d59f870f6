"""Make sample data, train a small model on it, test it and draw what it sees: a few minutes on a CPU."""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

CONFIG = 'demo/upernet_internvit_debug_demo'
DATA = Path('data/demo')
SHEET_ROWS = 6


def build_parser() -> argparse.ArgumentParser:
    """Arguments of the command."""
    parser = argparse.ArgumentParser(prog='demo', description=__doc__)
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/demo'), help='folder for everything it writes')
    parser.add_argument('--iterations', type=int, default=None, help='training steps (default: the config)')
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code of the first step that fails, or 0."""
    args = build_parser().parse_args(argv)
    start = time.monotonic()
    _say(1, f'sample data in {DATA}: shapes whose pattern is their class')
    _make_data()
    _say(2, 'train internvit_debug + UperNet from scratch')
    options = _schedule(args.iterations)
    _run('train', CONFIG, '--work-dir', args.work_dir, *options)
    checkpoint = _last_checkpoint(args.work_dir)
    _say(3, f'test {checkpoint}')
    _run('test', CONFIG, checkpoint, '--work-dir', args.work_dir)
    _say(4, 'draw predictions and curves')
    predictions = args.work_dir / 'predictions'
    _run('predict', CONFIG, checkpoint, DATA / 'images' / 'validation', '--out', predictions, '--overwrite')
    _draw(args.work_dir, predictions)
    print(_closing(args.work_dir, checkpoint, time.monotonic() - start), flush=True)
    return 0


def _say(step: int, text: str) -> None:
    print(f'\n[{step}/4] {text}', flush=True)


def _make_data() -> None:
    from internvl_dense.data.colour_baseline import nearest_colour_baseline
    from internvl_dense.data.sample import make_sample_dataset

    make_sample_dataset(DATA)
    print(f'a classifier by nearest colour reaches mIoU {100 * nearest_colour_baseline(DATA):.1f}', flush=True)


def _schedule(iterations: int | None) -> list[str]:
    if iterations is None:
        return []
    # A shorter run still ends with a decayed rate and a checkpoint.
    return ['--cfg-options', f'train_cfg.max_iters={iterations}', f'train_cfg.val_interval={iterations}',
            f'param_scheduler.0.max_iters={iterations}', f'default_hooks.checkpoint.interval={iterations}']


def _run(command: str, *arguments: object) -> None:
    words = [command, *map(str, arguments)]
    print(f'$ internvl-dense {shlex.join(words)}', flush=True)
    environment = {'OMP_NUM_THREADS': '1', **os.environ}
    status = subprocess.call([sys.executable, '-m', 'internvl_dense', *words], env=environment)
    if status:
        raise SystemExit(status)


def _last_checkpoint(work_dir: Path) -> Path:
    return Path((work_dir / 'last_checkpoint').read_text(encoding='utf-8').strip())


def _draw(work_dir: Path, predictions: Path) -> None:
    from PIL import Image

    from internvl_dense.data.drawing import colourise, contact_sheet, with_legend
    from internvl_dense.data.file_pairs import find_pairs
    from internvl_dense.data.image_files import read_image
    from internvl_dense.data.label_files import read_label
    from internvl_dense.data.sample import SAMPLE_POLICY
    from internvl_dense.evaluation.curves import draw_curves

    draw_curves(work_dir, work_dir / 'curves.png', title='demo')
    pairs = find_pairs(DATA / 'images' / 'validation', DATA / 'annotations' / 'validation', ('.jpg',), '.png').pairs
    rows = []
    for pair in pairs[:SHEET_ROWS]:
        truth, predicted = read_label(pair.label), read_label(predictions / 'masks' / f'{pair.image.stem}.png')
        rows.append([read_image(pair.image), *(
            colourise(ids, SAMPLE_POLICY.palette, ignore=SAMPLE_POLICY.ignore_index) for ids in (truth, predicted))])
    sheet = contact_sheet(rows, ('image', 'truth', 'prediction'))
    Image.fromarray(with_legend(sheet, SAMPLE_POLICY.classes, SAMPLE_POLICY.palette)).save(work_dir / 'predictions.png')


def _closing(work_dir: Path, checkpoint: Path, seconds: float) -> str:
    return f"""
done in {seconds / 60:.1f} minutes. Look at
  {work_dir / 'predictions.png'}   image, truth and prediction side by side
  {work_dir / 'curves.png'}        loss and mIoU
  {work_dir / 'predictions'}       masks and overlays of all test images
  {work_dir / 'metrics.json'}      the table above, unrounded
next
  a linear head on this trunk:  internvl-dense train demo/linear_probing_internvit_debug_demo \\
                                  --weights {checkpoint}
  boxes and masks:              internvl-dense train demo/mask_rcnn_internvit_debug_demo
  your own images:              docs/data.md
  InternViT-6B on ADE20K:       internvl-dense train ade20k/linear_probing_internvit_6b_224px_ade20k --dry-run"""


if __name__ == '__main__':
    from internvl_dense.errors import run

    raise SystemExit(run(main))
