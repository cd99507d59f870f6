"""Predict images: index PNG masks in the palette of the classes, and overlays with a legend.

OUT/masks and OUT/overlays keep the folders of the inputs below their deepest common folder. Images that share folder
and stem (a.jpg, a.png) keep their suffix in the name (a.jpg.png, a.png.png). A run that was stopped continues where it
was: images with both results are skipped. Images that cannot be read are listed at the end and in OUT/bad_files.txt,
and the exit code is then 1.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from internvl_dense.commands import _options
from internvl_dense.commands._progress import Progress

if TYPE_CHECKING:
    from internvl_dense.data.image_inputs import ImageInputs
    from internvl_dense.data.prediction_files import PredictionFolder


def build_parser() -> argparse.ArgumentParser:
    """Arguments of the command."""
    parser = argparse.ArgumentParser(
        prog='predict', description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    _options.add_config(parser)
    _options.add_model(parser)
    parser.add_argument('checkpoint', help='checkpoint of a whole model')
    parser.add_argument('inputs', nargs='+', metavar='IMAGE|DIR|GLOB',
                        help='image files, folders (with all folders below) or quoted patterns such as "a/**/*.png"')
    parser.add_argument('--out', metavar='DIR', help='folder for the results (default: work_dirs/CONFIG/predictions)')
    parser.add_argument('--opacity', type=_opacity, default=0.5, metavar='0..1',
                        help='of the colours in overlays (default: 0.5)')
    parser.add_argument('--device', help='cpu, cuda or cuda:N (default: the GPU where there is one)')
    parser.add_argument('--overwrite', action='store_true',
                        help='delete the predictions that an earlier run left in DIR, and predict again')
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code.

    Raises:
        UserError: No images, a checkpoint that does not fit, or an output folder with results of another model.
    """
    args = build_parser().parse_args(argv)
    from internvl_dense.data.image_inputs import find_images
    from internvl_dense.data.prediction_files import PredictionFolder
    from internvl_dense.openmmlab import predictor
    from internvl_dense.openmmlab.configs import load_config
    from internvl_dense.openmmlab.strict_load import checkpoint_file

    config = load_config(args)
    device = predictor.pick_device(args.device)
    out = Path(args.out or Path(config.work_dir) / 'predictions')
    found = find_images(args.inputs, skipped=PredictionFolder.result_folders(out))
    args.checkpoint = checkpoint_file(args.checkpoint)
    folder = PredictionFolder(out, predictor.label_policy(config, args.checkpoint), args.opacity)
    folder.open(
        {**predictor.settings(config, args.checkpoint), 'images_below': str(found.root), 'opacity': args.opacity,
         'label_policy': folder.policy.as_dict()},
        about={'config': config.filename, 'checkpoint': str(Path(args.checkpoint).absolute())},
        overwrite=args.overwrite,
    )
    waiting = {name: path for name, path in found.images.items() if not folder.is_done(name)}
    print(f'{len(found.images)} images, {len(found.images) - len(waiting)} of them predicted before')
    predict = predictor.load_predictor(config, args.checkpoint, device) if waiting else None
    return _report(folder, _predict_all(predict, folder, waiting), found)


def _predict_all(predict: Any, folder: PredictionFolder, waiting: dict[str, Path]) -> dict[Path, str]:
    """Writes the results of all images; returns those that cannot be predicted, with the reason."""
    from internvl_dense.openmmlab.predictor import BadImageError

    bad: dict[Path, str] = {}
    progress = Progress(len(waiting), 'images')
    for name, path in waiting.items():
        try:
            image, ids = predict(path)
        except BadImageError as error:
            bad[path] = ' '.join(str(error).split())
        else:
            folder.save(name, image, ids)
        progress.step()
    return bad


def _report(folder: PredictionFolder, bad: dict[Path, str], found: ImageInputs) -> int:
    listed = folder.write_bad_files(bad)
    masks, overlays = folder.result_folders(folder.folder)
    print(f'{len(found.images) - len(bad)} images predicted: {masks}, {overlays}')
    if not bad:
        return 0
    print(f'{len(bad)} images could not be predicted, listed in {listed}:')
    for path, reason in bad.items():
        print(f'  {path}: {reason}')
    return 1


def _opacity(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f'{text!r}: a number between 0 (image alone) and 1 (colours alone)')
    return value
