"""Predict images: class masks and overlays, or, for detectors, boxes, masks and a COCO json.

A segmentation model writes index PNG masks in the palette of the classes to OUT/masks and overlays with a legend to
OUT/overlays. A detector draws objects into OUT/overlays and writes all of them, whatever their score, to
OUT/predictions.json (and of each image to OUT/instances).

Results keep the folders of the inputs below their deepest common folder. Images that share folder and stem (a.jpg,
a.png) keep their suffix in the name (a.jpg.png, a.png.png). A run that was stopped continues where it was: images with
all results are skipped. Images that cannot be read are listed at the end and in OUT/bad_files.txt, and the exit code
is then 1.
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
    from internvl_dense.data.result_folder import ResultFolder

MIN_SCORE = 0.3  # of drawn objects; what mmdet's visualizers take


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
    parser.add_argument('--opacity', type=_share, default=0.5, metavar='0..1',
                        help='of the colours in overlays (default: 0.5)')
    parser.add_argument('--score-thr', type=_share, default=None, metavar='0..1',
                        help='detectors: objects below this score are not drawn (default: 0.3)')
    parser.add_argument('--ann-file', metavar='JSON',
                        help='detectors: a COCO json of the images; predictions.json takes over its ids, so that '
                             'pycocotools can score it')
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
    from internvl_dense.data.result_folder import ResultFolder
    from internvl_dense.openmmlab import predictor
    from internvl_dense.openmmlab.configs import load_config
    from internvl_dense.openmmlab.strict_load import checkpoint_file

    config = load_config(args)
    device = predictor.pick_device(args.device)
    out = Path(args.out or Path(config.work_dir) / 'predictions')
    found = find_images(args.inputs, skipped=ResultFolder.result_folders(out))
    args.checkpoint = checkpoint_file(args.checkpoint)
    folder, settings = _folder(args, config, out, found)
    folder.open(
        {**predictor.settings(config, args.checkpoint), 'images_below': str(found.root), 'opacity': args.opacity,
         **settings},
        about={'config': config.filename, 'checkpoint': str(Path(args.checkpoint).absolute())},
        overwrite=args.overwrite,
    )
    waiting = {name: path for name, path in found.images.items() if not folder.is_done(name)}
    print(f'{len(found.images)} images, {len(found.images) - len(waiting)} of them predicted before')
    predict = predictor.load_predictor(config, args.checkpoint, device) if waiting else None
    return _report(folder, _predict_all(predict, folder, waiting), found)


def _folder(
    args: argparse.Namespace, config: Any, out: Path, found: ImageInputs
) -> tuple[ResultFolder, dict[str, Any]]:
    """The folder for the results of this kind of model, and what they depend on beside the model."""
    from internvl_dense.data.prediction_files import PredictionFolder
    from internvl_dense.errors import UserError
    from internvl_dense.openmmlab import predictor
    from internvl_dense.openmmlab.tasks import DETECTION, task_of

    if task_of(config) == DETECTION:
        return _instance_folder(args, config, out, found)
    wrong = [option for option, value in (('--score-thr', args.score_thr), ('--ann-file', args.ann_file))
             if value is not None]
    if wrong:
        raise UserError(f'{" and ".join(wrong)}: for detectors; {config.filename} is of a segmentation model')
    policy = predictor.label_policy(config, args.checkpoint)
    return PredictionFolder(out, policy, args.opacity), {'label_policy': policy.as_dict()}


def _instance_folder(
    args: argparse.Namespace, config: Any, out: Path, found: ImageInputs
) -> tuple[ResultFolder, dict[str, Any]]:
    from internvl_dense.data.instance_files import InstanceFolder, read_coco_ids
    from internvl_dense.openmmlab import predictor

    names = predictor.instance_classes(config, args.checkpoint)
    files = {name: path.relative_to(found.root).as_posix() for name, path in found.images.items()}
    ids = read_coco_ids(Path(args.ann_file), names.classes, list(files.values())) if args.ann_file else None
    least = MIN_SCORE if args.score_thr is None else args.score_thr
    folder = InstanceFolder(out, names, files, ids, least, args.opacity)
    return folder, {'score_thr': least, 'classes': names.classes, 'palette': names.palette}


def _predict_all(predict: Any, folder: ResultFolder, waiting: dict[str, Path]) -> dict[Path, str]:
    """Writes the results of all images; returns those that cannot be predicted, with the reason."""
    from internvl_dense.openmmlab.predictor import BadImageError

    bad: dict[Path, str] = {}
    progress = Progress(len(waiting), 'images')
    for name, path in waiting.items():
        try:
            image, result = predict(path)
        except BadImageError as error:
            bad[path] = ' '.join(str(error).split())
        else:
            folder.save(name, image, result)
        progress.step()
    return bad


def _report(folder: ResultFolder, bad: dict[Path, str], found: ImageInputs) -> int:
    listed = folder.write_bad_files(bad)
    print(f'{len(found.images) - len(bad)} images predicted: {folder.finish()}')
    if not bad:
        return 0
    print(f'{len(bad)} images could not be predicted, listed in {listed}:')
    for path, reason in bad.items():
        print(f'  {path}: {reason}')
    return 1


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f'{text!r}: a number between 0 and 1')
    return value
