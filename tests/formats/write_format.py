"""Writes the smallest whole checkpoint of today's format, with a prediction, for later versions to read.

python -m tests.formats.write_format        (from the checkout; once for each new `checkpoint_meta.FORMAT`)

Each file stays as it is for good: a version that cannot read one has broken somebody's checkpoint.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import tempfile

import torch

from internvl_dense.data.sample import make_sample_dataset
from internvl_dense.openmmlab import checkpoint_meta
from internvl_dense.safe_load import load_file, save_file
from tests import tiny_runs

FOLDER = pathlib.Path(__file__).resolve().parent
CONFIG = """# The model of {name}.pth.
_base_ = ['../../configs/demo/linear_probing_internvit_debug_demo.py']
model = dict(backbone=dict(depth=2, embed_dim=8, num_heads=2, image_size=70, frozen=False, weights='random'))
"""


def predict(model: torch.nn.Module, image: torch.Tensor) -> torch.Tensor:
    """Logits (6, 20, 20), every 7th pixel, for an image (3, 35, 35) uint8 whose pixels are laid out four by four."""
    large = image.repeat_interleave(4, 1).repeat_interleave(4, 2)
    model.eval()
    with torch.inference_mode():
        logits = model.test_step({'inputs': [large]})[0].seg_logits.data
    return logits[:, ::7, ::7].clone()


def main() -> None:
    name = f'format_{checkpoint_meta.FORMAT}'
    config = FOLDER / f'{name}.py'
    if (FOLDER / f'{name}.pth').exists():
        raise SystemExit(f'{name}.pth is there already; it is never written again')
    config.write_text(CONFIG.format(name=name))
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        # Relative paths, so that the file does not tell where it was written.
        make_sample_dataset('data/demo', train=4, val=2)
        changes = {'model.decode_head.channels': None, 'param_scheduler.0.warmup_iters': 0, 'train_cfg.max_iters': 2}
        words = [*tiny_runs.options(pathlib.Path('data/demo'), {**changes, 'experiment_name': name})]
        words = [word for word in words if not word.startswith('model.backbone.')]
        process = tiny_runs.tool('train', config, '--work-dir', 'run', *words, cwd=pathlib.Path(folder))
        assert process.returncode == 0, process.stderr
        shutil.copy('run/iter_2.pth', FOLDER / f'{name}.pth')
    model = tiny_runs.build_model(tiny_runs.load_config(tiny_runs.Namespace(config=str(config))))
    model.load_state_dict(load_file(FOLDER / f'{name}.pth')['state_dict'])
    image = torch.randint(0, 256, (3, 35, 35), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    save_file({'image': image, 'logits': predict(model, image)}, FOLDER / f'{name}_expected.pt')
    print({path.name: os.path.getsize(path) for path in FOLDER.glob(f'{name}*')})


if __name__ == '__main__':
    main()
