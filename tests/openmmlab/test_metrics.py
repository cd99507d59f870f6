"""DenseIoUMetric in one process and, with this file run as a script, in two."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.dataset import DefaultSampler
from mmengine.evaluator import Evaluator
from mmengine.logging import MMLogger
from mmengine.model import BaseModel
from mmengine.registry import METRICS, DefaultScope
from mmengine.runner import Runner
from mmengine.structures import PixelData
from mmseg.evaluation import IoUMetric
from mmseg.registry import METRICS as MMSEG_METRICS
from mmseg.structures import SegDataSample
from PIL import Image
from torch import distributed
from torch.utils.data import DataLoader, Dataset, DistributedSampler, Sampler

from internvl_dense.errors import UserError
from internvl_dense.evaluation.curves import draw_curves
from internvl_dense.openmmlab.metrics import DenseIoUMetric

CLASSES = ('road', 'sky', 'tree', 'boat', 'lamp')
ABSENT_CLASS = 4
IGNORE = 255
KEYS = ['mIoU', 'mAcc', 'aAcc', 'mIoU_all_classes']


class Scenes(Dataset):
    """Noisy predictions of images that all differ, so that one counted twice or left out changes the result."""

    METAINFO = {'classes': CLASSES}

    def __init__(self, size: int, broken: int | None = None) -> None:
        self.size = size
        self.broken = broken
        self.metainfo = self.METAINFO

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> SegDataSample:
        rng = np.random.default_rng(index)
        label = rng.integers(0, ABSENT_CLASS, (1, 9 + index, 11))
        pred = np.where(rng.random(label.shape) < 0.4, rng.integers(0, ABSENT_CLASS, label.shape), label)
        label[rng.random(label.shape) < 0.1] = IGNORE
        if index == self.broken:
            label[0, 0, :3] = 200
        return data_sample(pred, label, img_path=f'/data/scene_{index}.jpg')


def data_sample(pred: Any, label: Any = None, **meta: Any) -> SegDataSample:
    sample = SegDataSample(metainfo={'img_path': '/data/a.jpg', **meta})
    sample.pred_sem_seg = PixelData(data=torch.as_tensor(pred))
    if label is not None:
        sample.gt_sem_seg = PixelData(data=torch.as_tensor(label))
    return sample


def evaluator_of(classes: tuple[str, ...] = CLASSES, **options: Any) -> Evaluator:
    evaluator = Evaluator({'type': 'DenseIoUMetric', **options})
    evaluator.dataset_meta = {'classes': classes}
    return evaluator


def evaluate(dataset: Scenes, sampler: Sampler[int] | None = None, batch_size: int = 2) -> tuple[dict[str, float], Any]:
    """What the validation loop does: the percents and the unrounded fractions."""
    evaluator = evaluator_of()
    for batch in DataLoader(dataset, batch_size, sampler=sampler, collate_fn=list):
        evaluator.process(batch)
    values = evaluator.evaluate(len(dataset))
    return values, evaluator.metrics[0].last_metrics


@pytest.mark.parametrize('scope', [None, 'mmseg'])
def test_found_from_every_scope(scope: str | None):
    if scope is None:
        metric = METRICS.build({'type': 'DenseIoUMetric'})
    else:
        with DefaultScope.overwrite_default_scope(scope):
            metric = METRICS.build({'type': 'DenseIoUMetric', 'iou_metrics': ['mIoU'], 'ignore_index': 7})
    assert isinstance(metric, DenseIoUMetric)
    assert isinstance(MMSEG_METRICS.build({'type': 'DenseIoUMetric'}), DenseIoUMetric)


def test_constructing_says_nothing(caplog: pytest.LogCaptureFixture):
    logger = MMLogger.get_current_instance()
    logger.addHandler(caplog.handler)  # mmengine's loggers do not pass records on
    DenseIoUMetric()
    logger.removeHandler(caplog.handler)
    assert not caplog.records


@pytest.mark.parametrize('ignore_index', [IGNORE, 0])
@pytest.mark.parametrize('seed', range(4))
def test_equals_mmseg(seed: int, ignore_index: int):
    """Everything mmseg reports; `mIoU_all_classes` is the number it does not have."""
    generator = torch.Generator().manual_seed(seed)
    num_classes = 4 + 15 * seed
    pred, label = torch.randint(0, num_classes, (2, 1, 40, 50), generator=generator)
    # Some classes in neither map, some only predicted, some pixels ignored.
    pred, label = pred - pred % 2, label - label % 3
    label[torch.rand(label.shape, generator=generator) < 0.2] = ignore_index
    areas = IoUMetric.intersect_and_union(pred, label, num_classes, ignore_index)
    theirs = IoUMetric.total_area_to_metrics(*areas)

    evaluator = evaluator_of(tuple(f'class {index}' for index in range(num_classes)), ignore_index=ignore_index)
    evaluator.process([data_sample(pred, label)])
    values = evaluator.evaluate(1)
    scores = evaluator.metrics[0].last_metrics['per_class'].values()
    for key in ('IoU', 'Acc'):
        ours = [np.nan if row[key] is None else row[key] for row in scores]
        assert ours == pytest.approx(theirs[key].tolist(), abs=1e-6, nan_ok=True)
        assert values[f'm{key}'] == pytest.approx(100 * np.nanmean(theirs[key]), abs=1e-4)
    assert values['aAcc'] == pytest.approx(100 * float(theirs['aAcc']), abs=1e-4)
    assert values['mIoU_all_classes'] == pytest.approx(100 * np.nansum(theirs['IoU']) / num_classes, abs=1e-4)


def test_percent_unrounded_beside_unrounded_fractions(tmp_path: pathlib.Path):
    path = tmp_path / 'new folder' / 'metrics.json'
    metric = DenseIoUMetric(json_path=str(path), prefix='val')
    metric.dataset_meta = Scenes.METAINFO
    metric.process(None, [Scenes(1)[0].to_dict()])
    values = metric.evaluate(1)
    written = json.loads(path.read_text())
    assert list(written) == [*KEYS, 'per_class']
    assert written == metric.last_metrics
    assert values == {f'val/{key}': 100 * written[key] for key in KEYS}
    assert round(values['val/mIoU'], 4) != values['val/mIoU']
    assert written['per_class'][CLASSES[ABSENT_CLASS]] == {'IoU': None, 'Acc': None}
    assert [file.name for file in path.parent.iterdir()] == ['metrics.json']


def test_each_evaluation_starts_anew():
    evaluator = evaluator_of()
    results = []
    for _ in range(2):
        evaluator.process([Scenes(1)[0]])
        results.append(evaluator.evaluate(1))
    assert results[0] == results[1]
    with pytest.raises(UserError, match='200'):
        evaluator.process([Scenes(1, broken=0)[0]])
    with pytest.raises(UserError, match='No pixel was counted'):
        evaluator.evaluate(0)


def test_wrong_ids_stop_at_the_first_image_or_name_it_at_the_end():
    with pytest.raises(UserError, match=r'(?s)^/data/scene_0.jpg: Ids outside 0..4.*id 200 \(3 px\)'):
        evaluate(Scenes(3, broken=0))
    with pytest.raises(UserError, match=r'(?s)id 200 \(3 px\).*in 1 images: /data/scene_2.jpg$'):
        evaluate(Scenes(3, broken=2))


@pytest.mark.parametrize(
    ('sample', 'message'),
    [
        (data_sample(torch.zeros(1, 4, 4).long()), '^/data/a.jpg has no label'),
        (data_sample(torch.zeros(1, 4, 4).long(), torch.zeros(1, 4, 5).long()), r'(?s)^/data/a.jpg: .*\(4, 5\)'),
        (data_sample(torch.zeros(1, 4, 4).long(), torch.zeros(4, 4, 3).long()), r'(?s)^/data/a.jpg: .*\(4, 4, 3\)'),
        (data_sample(torch.full((1, 4, 4), 5), torch.zeros(1, 4, 4).long()), r'(?s)predictions hold id 5 \(16 px\)'),
    ],
)
def test_samples_that_cannot_be_counted(sample: SegDataSample, message: str):
    with pytest.raises(UserError, match=message):
        evaluator_of().process([sample])


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'iou_metrics': ['mIoU', 'mDice']}, r"\['mIoU', 'mDice'\]: .* mmseg.IoUMetric has the others"),
        ({'format_only': True}, 'give output_dir'),
    ],
)
def test_impossible_options(options: dict[str, Any], message: str):
    with pytest.raises(UserError, match=message):
        DenseIoUMetric(**options)


def test_class_names_are_needed():
    metric = DenseIoUMetric()
    with pytest.raises(UserError, match='metainfo has no classes'):
        metric.process(None, [Scenes(1)[0].to_dict()])


@pytest.mark.parametrize('seen', [2, 4])
def test_an_image_too_few_or_too_many_is_refused(seen: int):
    evaluator = evaluator_of()
    evaluator.process([Scenes(seen)[index] for index in range(seen)])
    with pytest.raises(UserError, match=f'process 0 of 1 counted {seen}, its share of 3 is 3'):
        evaluator.evaluate(3)


@pytest.mark.parametrize('num_classes', [150, 255, 256, 300])
@pytest.mark.parametrize('reduce_zero_label', [True, False])
def test_predictions_as_files(tmp_path: pathlib.Path, num_classes: int, reduce_zero_label: bool):
    folder = tmp_path / 'predictions'
    names = tuple(map(str, range(num_classes)))
    evaluator = evaluator_of(names, format_only=True, output_dir=str(folder))
    assert not folder.exists()
    pred = torch.arange(num_classes)[None, None]
    evaluator.process([data_sample(pred, img_path='/x/b.c.jpg', reduce_zero_label=reduce_zero_label)])
    assert evaluator.evaluate(1) == {}
    assert evaluator.metrics[0].last_metrics is None
    assert [path.name for path in folder.iterdir()] == ['b.c.png']
    with Image.open(folder / 'b.c.png') as image:
        ids = np.asarray(image)
    assert ids.tolist() == (pred[0] + int(reduce_zero_label)).tolist()
    assert ids.dtype == (np.uint8 if num_classes < 256 else np.uint16)


def test_files_are_written_beside_counting_and_never_twice(tmp_path: pathlib.Path):
    evaluator = evaluator_of(output_dir=str(tmp_path))
    sample = data_sample(torch.zeros(1, 2, 2).long(), torch.zeros(1, 2, 2).long(), img_path='/x/a.jpg')
    evaluator.process([sample])
    assert (tmp_path / 'a.png').exists()
    with pytest.raises(UserError, match='/y/a.jpg and /x/a.jpg would both be written as a.png'):
        evaluator.process([data_sample(torch.zeros(1, 2, 2).long(), img_path='/y/a.jpg')])
    assert evaluator.evaluate(1)['mIoU'] == 100.0


class Constant(BaseModel):
    """Predicts class 0 or, from the fourth step on, what the label says; its loss is a number that falls."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(()))
        self.register_buffer('steps', torch.zeros(()))

    def forward(self, inputs: list[SegDataSample], mode: str = 'tensor') -> Any:
        if mode == 'loss':
            self.steps += 1
            return {'loss': self.weight**2}
        for sample in inputs:
            label = sample.gt_sem_seg.data
            right = torch.where(label == IGNORE, 0, label)
            sample.pred_sem_seg = PixelData(data=right if self.steps >= 4 else torch.zeros_like(label))
        return inputs


def test_a_run_keeps_its_best_checkpoint_and_draws_its_curves(tmp_path: pathlib.Path):
    def loader(batch_size: int) -> dict[str, Any]:
        collate = {'type': 'pseudo_collate'}
        sampler = {'type': 'DefaultSampler', 'shuffle': False}
        return {'batch_size': batch_size, 'dataset': Samples(3), 'sampler': sampler, 'collate_fn': collate}

    class Samples(Scenes):
        def __getitem__(self, index: int) -> dict[str, Any]:  # type: ignore[override]
            return {'inputs': super().__getitem__(index)}

    runner = Runner(
        model=Constant(),
        work_dir=str(tmp_path),
        train_dataloader=loader(1),
        val_dataloader=loader(2),
        train_cfg={'type': 'IterBasedTrainLoop', 'max_iters': 6, 'val_interval': 2},
        val_cfg={},
        val_evaluator={'type': 'DenseIoUMetric'},
        optim_wrapper={'optimizer': {'type': 'SGD', 'lr': 0.1}},
        default_hooks={
            'logger': {'type': 'LoggerHook', 'interval': 1, 'log_metric_by_epoch': False},
            'checkpoint': {'type': 'CheckpointHook', 'by_epoch': False, 'interval': 2, 'save_best': 'mIoU'},
        },
        log_processor={'by_epoch': False},
        default_scope='mmseg',
        experiment_name='metrics',
    )
    runner.train()
    assert [path.name for path in tmp_path.glob('best_*')] == ['best_mIoU_iter_4.pth']
    metric = runner.val_evaluator.metrics[0]
    assert metric.last_metrics['mIoU'] == 1.0
    assert runner.message_hub.get_scalar('val/mIoU').current() == 100.0
    log = next(tmp_path.glob('*/*.log')).read_text()
    assert 'boat   100.00  100.00' in log
    assert 'absent, not in the means: lamp' in log
    assert draw_curves(tmp_path, tmp_path / 'curves.png').stat().st_size > 10_000


# Two processes ----------------------------------------------------------------------------------------------------


def sampler_of(kind: str, dataset: Scenes) -> Sampler[int]:
    if kind == 'torch':
        return DistributedSampler(dataset, shuffle=False)
    if kind == 'contiguous':
        return [range(6), range(6, 7)][distributed.get_rank()]  # type: ignore[return-value]
    return DefaultSampler(dataset, shuffle=kind == 'shuffled', seed=0, round_up=kind != 'no padding')


SIZES = [7, 2, 1]
SAMPLERS = ['padded', 'shuffled', 'no padding', 'torch']


def in_one_of_two_processes(rank: int, folder: pathlib.Path) -> None:
    """Evaluates every case and writes what came out; an error counts as a result."""
    store = f'file://{folder / "store"}'
    distributed.init_process_group('gloo', init_method=store, rank=rank, world_size=2)
    results: dict[str, Any] = {
        f'{size} {kind}': evaluate(Scenes(size), sampler_of(kind, Scenes(size))) for size in SIZES for kind in SAMPLERS
    }
    for name, dataset, kind in (('contiguous', Scenes(7), 'contiguous'), ('broken', Scenes(7, broken=5), 'padded')):
        try:
            results[name] = evaluate(dataset, sampler_of(kind, dataset))
        except UserError as error:
            results[name] = str(error)
    (folder / f'{rank}.json').write_text(json.dumps(results))
    distributed.destroy_process_group()


@pytest.fixture(scope='module')
def two_processes(tmp_path_factory: pytest.TempPathFactory, repo_root: pathlib.Path) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp('two')
    environment = {**os.environ, 'PYTHONPATH': str(repo_root)}
    processes = [
        subprocess.Popen([sys.executable, __file__, str(rank), str(folder)], env=environment, stderr=subprocess.PIPE)
        for rank in range(2)
    ]
    errors = [process.communicate(timeout=120)[1].decode() for process in processes]
    assert [process.returncode for process in processes] == [0, 0], '\n'.join(errors)
    return [json.loads((folder / f'{rank}.json').read_text()) for rank in range(2)]


@pytest.mark.parametrize('kind', SAMPLERS)
@pytest.mark.parametrize('size', SIZES)
def test_two_processes_equal_one(two_processes: list[dict[str, Any]], size: int, kind: str):
    expected = list(evaluate(Scenes(size)))
    assert [results[f'{size} {kind}'] for results in two_processes] == [expected, expected]


def test_other_distributions_of_images_are_refused(two_processes: list[dict[str, Any]]):
    message = two_processes[0]['contiguous']
    assert 'process 0 of 2 counted 6, its share of 7 is 4' in message
    assert 'process 1 of 2 counted 1, its share of 7 is 3' in message
    assert two_processes[1]['contiguous'] == message


def test_every_process_reports_wrong_ids_of_any(two_processes: list[dict[str, Any]]):
    message = two_processes[0]['broken']
    assert message.endswith('in 1 images: /data/scene_5.jpg')
    assert 'id 200 (3 px)' in message
    assert two_processes[1]['broken'] == message


if __name__ == '__main__':
    in_one_of_two_processes(int(sys.argv[1]), pathlib.Path(sys.argv[2]))
