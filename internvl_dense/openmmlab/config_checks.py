"""Every mistake in a config and its data that can be known before training, in one message."""

from __future__ import annotations

import inspect
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from mmengine.config import Config
from mmengine.registry import DATASETS, MODELS, init_default_scope

from internvl_dense.backbones.checkpoint import check_backbone_weights
from internvl_dense.backbones.create import resolve_spec
from internvl_dense.backbones.internvit import InternViT
from internvl_dense.backbones.locate import PUBLISHED, RANDOM, find_weights
from internvl_dense.backbones.spec import BackboneSpec
from internvl_dense.data.checks import check_split
from internvl_dense.data.class_names import read_class_names
from internvl_dense.data.config_rules import check_geometry
from internvl_dense.data.few_shot import read_list
from internvl_dense.data.rules import Problem, format_problems
from internvl_dense.data.split_files import SampleIndex
from internvl_dense.errors import UserError
from internvl_dense.openmmlab import frozen_trunk
from internvl_dense.openmmlab.backbones import NO_WEIGHTS, InternViTBackbone, configured_weights
from internvl_dense.openmmlab.configs import published_batch
from internvl_dense.openmmlab.dataset_labels import label_policy_of
from internvl_dense.openmmlab.detection_checks import instance_problems
from internvl_dense.openmmlab.processes import planned_processes
from internvl_dense.openmmlab.tasks import DETECTION, task_of
from internvl_dense.registry import unknown
from internvl_dense.safe_load import load_file

# `weights` of a spec describes the published files; in a config it is a path.
SPEC_OPTIONS = frozenset(inspect.signature(BackboneSpec).parameters) - {'name', 'weights'}
WINDOW_KEYS = ('crop_size', 'stride')


def check_run(config: Config, splits: Sequence[str], check_data: int | None = None) -> list[Problem]:
    """Checks a config and the files behind it.

    Args:
        config: The resolved config.
        splits: Which of 'train', 'val', 'test' the command reads.
        check_data: Images and labels to read for each split; None reads all, 0 only looks at names.

    Returns:
        What is allowed and worth a look.

    Raises:
        UserError: All errors at once, with the warnings behind them.
    """
    init_default_scope(config.get('default_scope', 'mmseg'))
    found = [*config_problems(config), *(numerics_problems(config) if 'train' in splits else ())]
    found += split_problems(config, list(dict.fromkeys(splits)), check_data)
    if any(problem.severity == 'error' for problem in found):
        raise UserError(format_problems('this config cannot run', list(dict.fromkeys(found))))
    return found


def split_problems(config: Config, splits: Sequence[str], check_data: int | None) -> list[Problem]:
    """Files and labels of the splits, against the classes of the heads."""
    if task_of(config) == DETECTION:
        return instance_problems(config, splits, check_data)
    return [problem for split in splits for problem in data_problems(config, split, check_data)]


def config_problems(config: Config) -> Iterator[Problem]:
    """Variant, options and geometry of the model."""
    backbone = dict(config.model.backbone)
    cls = MODELS.get(backbone['type'])
    if cls is None:
        yield _error('backbone_type', f'model.backbone.type {backbone["type"]!r} is in no registry')
    if cls is None or not issubclass(cls, InternViT):
        return
    yield from _option_problems(backbone, cls)
    try:
        spec = resolve_spec(backbone.get('variant', ''), **{k: backbone[k] for k in SPEC_OPTIONS & backbone.keys()})
    except UserError as error:
        yield _error('variant', str(error))
        return
    yield from _weights_problems(config, spec)
    yield from _geometry_problems(config, spec.patch_size)


def _option_problems(backbone: dict[str, Any], cls: type) -> Iterator[Problem]:
    own = [inspect.signature(base).parameters for base in cls.__mro__ if issubclass(base, InternViTBackbone)]
    allowed = {*SPEC_OPTIONS}.union(*own) - {'overrides', 'kwargs'}
    for key in sorted(backbone.keys() - allowed - {'type'}):
        yield _error('option', unknown('option of model.backbone', key, allowed))


def _weights_problems(config: Config, spec: BackboneSpec) -> Iterator[Problem]:
    """The weights of the trunk are on this machine, where a run is going to read them."""
    checkpoint = config.get('resume') or config.get('load_from')
    if isinstance(checkpoint, str) and frozen_trunk.record_of(load_file(checkpoint), checkpoint) is None:
        return  # a whole model follows
    backbone = config.model.backbone
    try:
        weights = configured_weights(backbone.get('weights', PUBLISHED), backbone.get('init_cfg'))
        path = find_weights(spec, weights)
        if path is not None and path.exists():
            check_backbone_weights(spec, path, backbone.get('allow_missing', ()))
    except UserError as error:
        yield _error('weights', str(error))
        return
    if weights is None:
        yield _error('weights', NO_WEIGHTS)
    elif path is not None and not path.exists():
        yield _error('weights', f'model.backbone.weights: no file or folder {path}. Say where it is with --weights '
                                f'PATH (--weights {RANDOM} starts from random values).')


def numerics_problems(config: Config) -> Iterator[Problem]:
    """A published figure rests on the whole batch, over which SyncBN normalises."""
    try:
        whole = published_batch(config)
    except UserError as error:
        yield _error('numerics', str(error))
        return
    if whole is None:
        return
    _, processes = planned_processes(config.get('launcher', 'none'))
    batch = config.train_dataloader.batch_size
    if batch * processes != whole:
        yield _error(
            'published_batch', f"numerics='published' rests on {whole} images in a step, over which SyncBN normalises; "
            f'this run has {batch} x {processes} = {batch * processes}. Use a number of processes that divides {whole} '
            f'and leave train_dataloader.batch_size out, or --numerics fast (model.numerics=fast).')


def _geometry_problems(config: Config, patch_size: int) -> Iterable[Problem]:
    test_cfg = config.model.get('test_cfg') or {}
    crop = (config.model.get('data_preprocessor') or {}).get('size') or test_cfg.get('crop_size')
    head = config.model.get('decode_head') or {}
    loader = config.get('train_dataloader') or {}
    found = []
    if crop is not None:
        found += check_geometry(
            _pair(crop), patch_size, batch_per_gpu=loader.get('batch_size', 2),
            num_gpus=planned_processes(config.get('launcher', 'none'))[1],
            norm=(head.get('norm_cfg') or {}).get('type', ''), pools_to_one=1 in (head.get('pool_scales') or ()),
        )
    if test_cfg.get('mode') == 'slide':
        missing = [key for key in WINDOW_KEYS if key not in test_cfg]
        if missing:
            return [*found, _error('window', f'model.test_cfg: mode slide needs {" and ".join(missing)}')]
        found += check_geometry(_pair(test_cfg['crop_size']), patch_size, stride=_pair(test_cfg['stride']))
    return found


def data_problems(config: Config, split: str, check_data: int | None) -> list[Problem]:
    """Files and labels of one split, against the classes of the head."""
    dataset_cfg = {**config[f'{split}_dataloader'].dataset, 'lazy_init': True}
    names = dataset_cfg.get('metainfo', {}).get('classes')
    if isinstance(names, str):  # else `completion` has read them
        return [_error('classes', _class_names_fault(names))]
    try:
        dataset = DATASETS.build(dataset_cfg)
    except (KeyError, TypeError, ValueError, FileNotFoundError) as error:
        return [_error('dataset', f'{split}_dataloader.dataset cannot be built: {error}')]
    classes = tuple(dataset.metainfo.get('classes') or ())
    wanted = config.model.decode_head.get('num_classes')
    if wanted != len(classes):
        return [_error('num_classes', f'the head has num_classes={wanted}, {split} has {len(classes)} classes: '
                                      f'{", ".join(classes[:12])}{" ..." if len(classes) > 12 else ""}')]
    try:
        index = _index(dataset)
    except UserError as error:
        return [_error('dataset', f'{split}: {error}')]
    return check_split(index, max_files=check_data)


def _class_names_fault(path: str) -> str:
    """Why the names of the classes could not be read."""
    try:
        read_class_names(path)
    except UserError as error:
        return str(error)
    return f'{path} appeared while the config was read; start again'


def _index(dataset: Any) -> SampleIndex:
    names = tuple(read_list(pathlib.Path(dataset.ann_file))) if dataset.ann_file else None
    return SampleIndex(
        pathlib.Path(dataset.data_prefix['img_path']), pathlib.Path(dataset.data_prefix['seg_map_path']),
        label_policy_of(dataset), image_suffixes=_endings(dataset.img_suffix), label_suffix=dataset.seg_map_suffix,
        names=names,
    )


def _endings(suffix: Any) -> tuple[str, ...]:
    return (suffix,) if isinstance(suffix, str) else tuple(suffix)


def _error(rule: str, message: str) -> Problem:
    return Problem(rule, 'error', None, message)


def _pair(size: Any) -> tuple[int, int]:
    return int(size[0]), int(size[1])
