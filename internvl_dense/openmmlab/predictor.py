"""Predicts single image files with the model and the test pipeline of a config."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.registry import MODELS, TRANSFORMS, init_default_scope

from internvl_dense.backbones.fingerprint import file_sha256
from internvl_dense.data.image_files import image_facts
from internvl_dense.data.instances import InstanceClasses, Instances
from internvl_dense.data.label_policy import LabelPolicy
from internvl_dense.errors import UserError
from internvl_dense.openmmlab import checkpoint_meta, frozen_trunk
from internvl_dense.openmmlab.dataset_labels import config_label_policy, config_metainfo
from internvl_dense.openmmlab.detection_checks import class_counts
from internvl_dense.openmmlab.pipelines import PIPELINE_ERRORS, rgb, step_type
from internvl_dense.openmmlab.strict_load import load_model_state, state_of
from internvl_dense.openmmlab.tasks import DETECTION, task_of
from internvl_dense.safe_load import load_file

Image = npt.NDArray[np.uint8]
Found = TypeVar('Found')
Transform = Callable[[dict[str, Any]], dict[str, Any]]


class BadImageError(UserError):
    """An image that cannot be predicted; others can."""


class Predictor:
    """Class ids of image files, or what a subclass reads from the model's answer.

    Args:
        model: With weights, in eval mode, on its device.
        steps: The test pipeline without labels; the first step loads the image.
    """

    def __init__(self, model: BaseModel, steps: Sequence[Transform]) -> None:
        self.model = model
        self.steps = steps

    def __call__(self, path: str | os.PathLike[str]) -> tuple[Image, Any]:
        """Predicts one file.

        Returns:
            The image as it was loaded, (H, W, 3) uint8 RGB, and the result, see `read`.

        Raises:
            BadImageError: The file cannot be read, or its size is more or less than the model can take.
        """
        loaded, packed = self._prepare(Path(path))
        batch = {'inputs': [packed['inputs']], 'data_samples': [packed['data_samples']]}
        try:
            with torch.inference_mode():
                result = self.read(self.model.test_step(batch)[0])
        except torch.OutOfMemoryError as error:
            height, width = loaded.shape[:2]
            raise BadImageError(f'{width} x {height} px are too many for the memory of the GPU') from error
        except UserError as error:  # such as a picture of a few pixels
            raise BadImageError(str(error)) from error
        return loaded, result

    def read(self, sample: Any) -> Any:
        """Training ids of an answer, (H, W) uint8."""
        return sample.pred_sem_seg.data[0].to(torch.uint8).cpu().numpy()

    def _prepare(self, path: Path) -> tuple[Image, dict[str, Any]]:
        # OpenCV fills a file that is cut off with grey and says nothing; this finds out.
        fault = image_facts(path).unreadable
        if fault:
            raise BadImageError(fault)
        try:
            results = self.steps[0]({'img_path': str(path), 'img_id': 0})
            loaded = rgb(results['img'])
            for step in self.steps[1:]:
                results = step(results)
        except PIPELINE_ERRORS as error:
            raise BadImageError(str(error) or type(error).__name__) from error
        return loaded, results


class InstancePredictor(Predictor):
    """Objects in image files."""

    def read(self, sample: Any) -> Instances:
        """Objects of an answer, with boxes and masks in the size of the image file."""
        found = sample.pred_instances
        boxes, scores, labels = (found[key].detach().cpu().numpy() for key in ('bboxes', 'scores', 'labels'))
        masks = found.masks.detach().cpu().numpy().astype(bool) if 'masks' in found else None
        return Instances(boxes.astype(np.float64), scores.astype(np.float64), labels.astype(np.int64), masks)


def load_predictor(config: Config, checkpoint: str, device: str | torch.device | None = None) -> Predictor:
    """Builds the model of a config on a device and fills it from a checkpoint.

    Args:
        config: Model and test pipeline. Pretrained weights that it names are not read.
        checkpoint: File of a whole model.
        device: As in torch; None is the GPU where there is one.

    Raises:
        UserError: The checkpoint does not fit, or there is no such device.
    """
    chosen = pick_device(device)
    init_default_scope(config.get('default_scope', 'mmseg'))
    steps = [TRANSFORMS.build(step) for step in prediction_steps(config)]
    loaded = load_file(checkpoint)
    with chosen:  # built where it will run: a large model is never held twice
        model = MODELS.build(config.model)
    frozen_trunk.complete(loaded, model, checkpoint)
    load_model_state(model, state_of(loaded, checkpoint), checkpoint)
    kind = InstancePredictor if task_of(config) == DETECTION else Predictor
    return kind(model.to(chosen).eval(), steps)


def pick_device(name: str | torch.device | None) -> torch.device:
    """The device of that name, or the best one here.

    Raises:
        UserError: torch knows no such device, or this machine lacks it.
    """
    try:
        device = torch.device(name or ('cuda' if torch.cuda.is_available() else 'cpu'))
    except RuntimeError as error:
        raise UserError(f"device {name!r}: write 'cpu', 'cuda' or 'cuda:1'") from error
    if device.type == 'cuda' and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(f'device {name!r}: torch sees {torch.cuda.device_count()} CUDA devices here; name another')
    return device


def prediction_steps(config: Config) -> list[dict[str, Any]]:
    """The pipeline of the test data set without the loading of labels.

    Raises:
        UserError: There is none, or it does not begin by loading an image.
    """
    dataset = (config.get('test_dataloader') or {}).get('dataset') or {}
    steps = [dict(step) for step in dataset.get('pipeline') or () if step_type(step) != 'LoadAnnotations']
    if not steps or not step_type(steps[0]).startswith('LoadImage'):
        raise UserError('test_dataloader.dataset.pipeline must begin with LoadImageFromFile, '
                        f'this config has {[step_type(step) for step in steps] or "none"}')
    return steps


def label_policy(config: Config, checkpoint: str) -> LabelPolicy:
    """Classes, palette and ids of a checkpoint, as it says itself, else as the test data set of the config says.

    Raises:
        UserError: Neither names classes, or their number is not that of the model.
    """
    saved = checkpoint_meta.find(load_file(checkpoint), checkpoint)
    if saved and saved['classes']:
        policy, source = LabelPolicy.from_dict({
            'classes': saved['classes'], 'palette': saved['palette'], **saved['label_policy']}), checkpoint
    else:
        policy, source = _configured(config, checkpoint, config_label_policy), 'the test data set'
    wanted = config.model.decode_head.get('num_classes')
    if wanted != policy.num_classes:
        raise UserError(f'the head of this config has num_classes={wanted}, {source} has {policy.num_classes} classes: '
                        f'{", ".join(policy.classes[:12])}. Use the config that the checkpoint was trained with.')
    return policy


def instance_classes(config: Config, checkpoint: str) -> InstanceClasses:
    """Classes and colours of a detector's checkpoint, as it says itself, else as the test data set of the config says.

    Raises:
        UserError: Neither names classes, or their number is not that of a head.
    """
    loaded = load_file(checkpoint)
    classes, source = checkpoint_meta.classes_of(loaded, checkpoint), checkpoint
    saved = checkpoint_meta.find(loaded, checkpoint)
    palette = saved['palette'] if saved and classes else []
    if not classes:
        meta, source = _configured(config, checkpoint, config_metainfo), 'the test data set'
        classes, palette = list(meta.get('classes') or ()), meta.get('palette')
    wrong = [f'{place} has num_classes={count}' for place, count in class_counts(config.model) if count != len(classes)]
    if wrong:
        raise UserError(f'{source} has {len(classes)} classes ({", ".join(classes[:12])}), and {", ".join(wrong)}. Use '
                        'the config that the checkpoint was trained with.')
    colours = palette if isinstance(palette, (list, tuple)) and len(palette) == len(classes) else ()
    return InstanceClasses(tuple(classes), tuple((int(r), int(g), int(b)) for r, g, b in colours))


def settings(config: Config, checkpoint: str) -> dict[str, Any]:
    """What predictions depend on, as plain data."""
    return {
        'checkpoint_sha256': file_sha256(checkpoint),
        'model': config.model.to_dict(),
        'pipeline': prediction_steps(config),
    }


def _configured(config: Config, checkpoint: str, read: Callable[[Config, str], Found]) -> Found:
    """What the test data set says about its classes."""
    try:
        return read(config, 'test')
    except (KeyError, AttributeError, UserError) as error:
        raise UserError(f'{checkpoint} does not say its classes (no entry meta.{checkpoint_meta.KEY}), and neither '
                        'does the config: give test_dataloader.dataset a metainfo with classes') from error
