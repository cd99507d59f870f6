"""DenseCocoMetric in one process and, with this file run as a script, in two."""

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
from mmengine.registry import METRICS, DefaultScope
from mmengine.structures import BaseDataElement, InstanceData
from pycocotools import mask as masks
from pycocotools.coco import COCO
from torch import distributed
from torch.utils.data import DataLoader, Dataset, Sampler

from internvl_dense.errors import UserError
from internvl_dense.openmmlab.coco_metric import DenseCocoMetric
from tests.coco_cases import a_case

pytestmark = pytest.mark.filterwarnings('ignore:__array__ implementation:DeprecationWarning')

KINDS = ['bbox', 'segm']


class Detections(Dataset):
    """What a model found in the images of several random cases, joined to one data set."""

    def __init__(self, cases: int) -> None:
        self.content: dict[str, Any] = {'images': [], 'annotations': [], 'categories': [
            {'id': 30 - label, 'name': f'class {label}'} for label in range(3)]}
        self.found: list[list[dict[str, Any]]] = []
        for seed in range(cases):
            self._join(*a_case(seed + 1), offset=1000 * seed)
        self.metainfo = {'classes': tuple(category['name'] for category in self.content['categories'])}

    def _join(self, content: dict[str, Any], found: list[dict[str, Any]], offset: int) -> None:
        label = {category['id']: number for number, category in enumerate(content['categories'])}
        for image in content['images']:
            mine = [item for item in found if item['image_id'] == image['id']]
            self.found.append([{**item, 'category_id': label[item['category_id']]} for item in mine])
            self.content['images'].append({**image, 'id': image['id'] + offset})
        for item in content['annotations']:
            self.content['annotations'].append({
                **item, 'id': len(self.content['annotations']) + 1, 'image_id': item['image_id'] + offset,
                'category_id': 30 - label[item['category_id']]})

    def write(self, folder: pathlib.Path) -> str:
        (folder / 'a.json').write_text(json.dumps(self.content))
        return str(folder / 'a.json')

    def __len__(self) -> int:
        return len(self.found)

    def __getitem__(self, index: int) -> BaseDataElement:
        image, found = self.content['images'][index], self.found[index]
        shape = image['height'], image['width']
        corners = [[x, y, x + width, y + height] for x, y, width, height in (item['bbox'] for item in found)]
        decoded = [masks.decode(item['segmentation']).astype(bool) for item in found]
        sample = BaseDataElement(metainfo={'img_id': image['id'], 'ori_shape': shape})
        sample.pred_instances = InstanceData(
            bboxes=torch.tensor(corners, dtype=torch.float32).reshape(-1, 4),
            scores=torch.tensor([item['score'] for item in found]),
            labels=torch.tensor([item['category_id'] for item in found], dtype=torch.long),
            masks=torch.from_numpy(np.stack(decoded) if decoded else np.zeros((0, *shape), dtype=bool)))
        return sample


def evaluate(metric: dict[str, Any], dataset: Detections, sampler: Sampler[int] | None = None) -> dict[str, float]:
    """What the validation loop does."""
    evaluator = Evaluator(metric)
    evaluator.dataset_meta = dataset.metainfo
    for batch in DataLoader(dataset, 2, sampler=sampler, collate_fn=list):
        evaluator.process(batch)
    return evaluator.evaluate(len(dataset))


@pytest.fixture(scope='module')
def dataset() -> Detections:
    return Detections(8)


@pytest.fixture
def ann_file(dataset: Detections, tmp_path: pathlib.Path) -> str:
    return dataset.write(tmp_path)


def ours(ann_file: str, **options: Any) -> dict[str, Any]:
    return {'type': 'DenseCocoMetric', 'ann_file': ann_file, 'metric': KINDS, **options}


@pytest.mark.parametrize('scope', [None, 'mmdet'])
def test_found_from_every_scope(scope: str | None):
    if scope is None:
        assert isinstance(METRICS.build(ours('a.json')), DenseCocoMetric)
    else:
        with DefaultScope.overwrite_default_scope(scope):
            assert isinstance(METRICS.build(ours('a.json')), DenseCocoMetric)


def test_equals_mmdet_but_for_its_rounding(dataset: Detections, ann_file: str, capsys: pytest.CaptureFixture[str]):
    from internvl_dense.openmmlab import ops_fallback

    ops_fallback.install()
    import mmdet.evaluation  # noqa: F401

    values = evaluate(ours(ann_file), dataset)
    theirs = evaluate({'type': 'mmdet.CocoMetric', 'ann_file': ann_file, 'metric': KINDS}, dataset)
    assert list(values) == list(theirs)
    assert list(values)[:2] == ['coco/bbox_mAP', 'coco/bbox_mAP_50']
    assert {name: round(value, 3) for name, value in values.items()} == pytest.approx(theirs, abs=1e-9)
    assert all(0.01 < value < 1 for name, value in values.items() if 'mAP_l' not in name)
    assert any(round(value, 3) != value for value in values.values())


def test_each_class_and_every_number_on_request(dataset: Detections, ann_file: str, tmp_path: pathlib.Path):
    path = tmp_path / 'new' / 'scores.json'
    values = evaluate(ours(ann_file, metric='bbox', classwise=True, metric_items=['mAP', 'AR@300', 'AR_s@1000'],
                           prefix='val', json_path=str(path)), dataset)
    written = json.loads(path.read_text())['bbox']
    assert list(values)[:3] == ['val/bbox_mAP', 'val/bbox_AR@300', 'val/bbox_AR_s@1000']
    assert values['val/bbox_mAP'] == written['mAP']
    assert len(written) == 12 + 1
    assert values['val/bbox_class 1_precision'] == written['per_class']['class 1']['mAP']


def test_files_are_what_pycocotools_loads(dataset: Detections, ann_file: str, tmp_path: pathlib.Path):
    prefix = tmp_path / 'results' / 'run'
    assert evaluate(ours(ann_file, format_only=True, outfile_prefix=str(prefix)), dataset) == {}
    for kind in KINDS:
        loaded = COCO(ann_file).loadRes(f'{prefix}.{kind}.json')
        assert len(loaded.anns) == sum(len(found) for found in dataset.found)
        assert ('segmentation' in json.loads(pathlib.Path(f'{prefix}.{kind}.json').read_text())[0]) == (kind == 'segm')
    # The images of a test server come without annotations.
    bare = {key: value for key, value in dataset.content.items() if key != 'annotations'}
    pathlib.Path(ann_file).write_text(json.dumps(bare))
    assert evaluate(ours(ann_file, format_only=True, outfile_prefix=str(prefix)), dataset) == {}


def test_each_evaluation_starts_anew(dataset: Detections, ann_file: str):
    evaluator = Evaluator(ours(ann_file))
    evaluator.dataset_meta = dataset.metainfo
    results = []
    for _ in range(2):
        evaluator.process([dataset[index] for index in range(len(dataset))])
        results.append(evaluator.evaluate(len(dataset)))
    assert results[0] == results[1]


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'metric': ['bbox', 'proposal']}, r'(?s)1 problem.*mmdet.CocoMetric has proposal'),
        ({'ann_file': None, 'format_only': True}, r'(?s)2 problems.*ann_file is missing.*give outfile_prefix'),
        ({'proposal_nums': [100]}, 'three different numbers'),
        ({'metric_items': ['mAP', 'mAP_60', 'AR@10']}, 'mAP_60, AR@10 not known; there are mAP, .*AR@1000'),
    ],
)
def test_impossible_options(options: dict[str, Any], message: str):
    with pytest.raises(UserError, match=message):
        DenseCocoMetric(**{'ann_file': 'a.json', **options})


def test_a_fault_of_the_annotation_file_shows_before_the_first_image(dataset: Detections, ann_file: str):
    path = pathlib.Path(ann_file)
    for classes, message in ((('class 1', 'class 0', 'class 2'), 'their order there is class 0, class 1'),
                             ((), 'metainfo has no classes')):
        with pytest.raises(UserError, match=message):
            Evaluator(ours(ann_file)).dataset_meta = {'classes': classes}
    path.write_text('{"images": [')
    with pytest.raises(UserError, match='is no json'):
        Evaluator(ours(ann_file)).dataset_meta = dataset.metainfo
    path.unlink()
    with pytest.raises(UserError, match='cannot be read: No such file'):
        Evaluator(ours(ann_file)).dataset_meta = dataset.metainfo


def test_predictions_that_cannot_be_counted(dataset: Detections, ann_file: str):
    metric = METRICS.build(ours(ann_file))
    metric.dataset_meta = dataset.metainfo
    sample = next(dataset[index].to_dict() for index in range(len(dataset)) if dataset.found[index])
    bare = {key: value for key, value in sample['pred_instances'].items() if key != 'masks'}
    with pytest.raises(UserError, match="predicts no masks, so metric='bbox' alone"):
        metric.process(None, [{**sample, 'pred_instances': bare}])
    broken = {**sample['pred_instances'], 'scores': sample['pred_instances']['scores'] * float('nan')}
    with pytest.raises(UserError, match='scores of detections are NaN or infinite'):
        metric.process(None, [{**sample, 'pred_instances': broken}])
    small = Detections(1)
    small.found[0][0]['category_id'] = 3
    with pytest.raises(UserError, match='label 3 is predicted, the data set has 3 classes'):
        evaluate(ours(small.write(pathlib.Path(ann_file).parent)), small)


def test_images_left_out_are_an_error(dataset: Detections, ann_file: str):
    metric = METRICS.build(ours(ann_file))
    metric.dataset_meta = dataset.metainfo
    metric.process(None, [dataset[index].to_dict() for index in range(1, len(dataset))])
    with pytest.raises(UserError) as caught:
        metric.evaluate(len(dataset))
    assert f'{len(dataset) - 1} of the {len(dataset)} images of the data set were predicted' in str(caught.value)
    assert f'were not predicted, such as id {dataset.content["images"][0]["id"]}' in str(caught.value)
    # An annotation file with more images than the data set would count their objects as missed.
    metric.process(None, [dataset[index].to_dict() for index in range(3)])
    with pytest.raises(UserError, match='1 problem'):
        metric.evaluate(3)


# Two processes ----------------------------------------------------------------------------------------------------


class Strange(Sampler[int]):
    """Gives the first image to no process."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __iter__(self):
        return iter(range(1 + distributed.get_rank(), self.size, 2))


def in_one_of_two_processes(rank: int, folder: pathlib.Path) -> None:
    """Evaluates every case and writes what came out; an error counts as a result."""
    distributed.init_process_group('gloo', init_method=f'file://{folder / "store"}', rank=rank, world_size=2)
    dataset = Detections(8)
    results: dict[str, Any] = {}
    for name in ('padded', 'shuffled', 'no padding', 'one image'):
        used = Detections(1) if name == 'one image' else dataset
        used.content['images'], used.found = (used.content['images'][:1], used.found[:1]) if name == 'one image' else (
            used.content['images'], used.found)
        kept = {image['id'] for image in used.content['images']}
        used.content['annotations'] = [item for item in used.content['annotations'] if item['image_id'] in kept]
        place = folder / f'{rank} {name}'
        place.mkdir()
        sampler = DefaultSampler(used, shuffle=name == 'shuffled', seed=0, round_up=name != 'no padding')
        results[name] = evaluate(ours(used.write(place)), used, sampler)
    try:
        results['left out'] = evaluate(ours(dataset.write(folder / f'{rank} padded')), dataset, Strange(len(dataset)))
    except UserError as error:
        results['left out'] = str(error)
    (folder / f'{rank}.json').write_text(json.dumps(results))
    distributed.destroy_process_group()


@pytest.fixture(scope='module')
def two_processes(tmp_path_factory: pytest.TempPathFactory, repo_root: pathlib.Path) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp('two')
    environment = {**os.environ, 'PYTHONPATH': str(repo_root)}
    processes = [subprocess.Popen([sys.executable, '-W', 'ignore', __file__, str(rank), str(folder)], env=environment,
                                  cwd=folder, stderr=subprocess.PIPE) for rank in range(2)]
    errors = [process.communicate(timeout=120)[1].decode() for process in processes]
    assert [process.returncode for process in processes] == [0, 0], '\n'.join(errors)
    return [json.loads((folder / f'{rank}.json').read_text()) for rank in range(2)]


@pytest.mark.parametrize('kind', ['padded', 'shuffled', 'no padding'])
def test_two_processes_equal_one(two_processes: list[dict[str, Any]], dataset: Detections, ann_file: str, kind: str):
    assert len(dataset) % 2, 'an odd number of images is what makes a sampler repeat one'
    expected = evaluate(ours(ann_file), dataset)
    assert [results[kind] for results in two_processes] == [expected, expected]


def test_a_process_may_have_nothing_but_a_repeat(two_processes: list[dict[str, Any]]):
    first, second = (results['one image'] for results in two_processes)
    assert first == second and 0 < first['coco/bbox_mAP'] <= 1


def test_every_process_hears_of_images_left_out(two_processes: list[dict[str, Any]]):
    first, second = (results['left out'] for results in two_processes)
    assert first.replace('/0 padded/', '/1 padded/') == second.replace('/0 padded/', '/1 padded/')
    assert '1 images' in first and 'were not predicted' in first


if __name__ == '__main__':
    in_one_of_two_processes(int(sys.argv[1]), pathlib.Path(sys.argv[2]))
