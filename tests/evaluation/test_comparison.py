"""Alignment, verdict, report and picture of two training curves."""

from __future__ import annotations

import json
import math
import pathlib
import statistics

import numpy as np
import pytest
from PIL import Image

from internvl_dense.errors import UserError
from internvl_dense.evaluation.comparison import Quantity, Rules, align, compare_curves
from internvl_dense.evaluation.comparison_plot import draw_comparison
from internvl_dense.evaluation.comparison_report import as_data, listed_iterations, table, verdicts
from internvl_dense.evaluation.comparison_sources import Source
from internvl_dense.evaluation.curves import Curve
from tests import mmcv_logs

Curves = dict[str, Curve]
RULES = Rules()
END = mmcv_logs.MAX_ITERS


def curves(last: int = END, every: int = 50, seed: int = 0, spread: float = 0.05, first: int = 0) -> Curves:
    """Noisy losses, exact rates and scores, from `first` to `last`."""
    factor = mmcv_logs.noise(seed, spread)
    steps = range(max(every, first), last + 1, every)
    return {'loss': {at: mmcv_logs.loss(at) * factor() for at in steps}, 'lr': {at: mmcv_logs.lr(at) for at in steps},
            'mIoU': {at: mmcv_logs.miou(at) for at in steps if at % mmcv_logs.EVALUATION == 0}}


def scaled(source: Curves, name: str, factor: float, after: int = 0) -> Curves:
    return {**source, name: {at: value * (factor if at > after else 1) for at, value in source[name].items()}}


def compared(run: Curves, reference: Curves, rules: Rules = RULES) -> dict[str, Quantity]:
    return {quantity.name: quantity for quantity in compare_curves(run, reference, rules)}


def sources(run: Curves, reference: Curves) -> tuple[Source, Source]:
    return Source('work_dirs/x', run, {'x.json': 'ab' * 32}), Source('published:y', reference, {'y.log': 'cd' * 32})


@pytest.mark.parametrize('every', [10, 20, 50, 70])
def test_the_same_curve_with_noise_is_inside(every: int):
    found = compared(curves(every=every, seed=1), curves())
    assert {name: quantity.inside for name, quantity in found.items()} == dict.fromkeys(('loss', 'lr', 'mIoU'), True)
    assert max(abs(point.run / point.reference - 1) for point in found['loss'].points) > RULES.loss / 2
    assert [point.deviation for point in found['mIoU'].judged] == [0.0] * len(found['mIoU'].judged)


def test_between_two_points_lies_the_straight_line():
    points, outside = align({5: 0.0, 10: 0.0, 15: 0.0, 20: 0.0, 35: 0.0, 40: 0.0, 41: 0.0}, {10: 1.0, 20: 3.0, 40: 7.0})
    assert [(point.iteration, point.reference, point.interpolated) for point in points] == [
        (10, 1.0, False), (15, 2.0, True), (20, 3.0, False), (35, 6.0, True), (40, 7.0, False)]
    assert outside == [5, 41]


def test_means_are_over_the_same_iterations_of_both():
    run, reference = {'loss': {at: float(at) for at in range(10, 110, 10)}}, {'loss': {10: 1.0, 100: 10.0}}
    points = compared(run, reference, Rules(window=30))['loss'].points
    assert [point.iteration for point in points if point.inside is not None] == list(range(40, 110, 10))
    assert points[0].compared == (10.0, 1.0)  # shown with what there is
    assert points[5].compared == pytest.approx((50.0, 5.0))  # of 40, 50 and 60
    assert points[5].deviation == pytest.approx(9.0)


@pytest.mark.parametrize('factor', [1.3, 1 / 1.3])
def test_a_loss_that_leaves_is_found_where_its_mean_leaves(factor: float):
    reference, window = curves(spread=0.0), 500
    run = scaled(reference, 'loss', factor, after=4000)
    found = compared(run, reference, Rules(window=window))

    def ratio(at: int) -> float:
        steps = range(at - window + 50, at + 1, 50)
        return (statistics.fmean(run['loss'][step] for step in steps)
                / statistics.fmean(reference['loss'][step] for step in steps))

    first = next(at for at in range(4000, END, 50) if abs(ratio(at) - 1) > 0.15)
    loss = found['loss']
    assert loss.inside is False and loss.leaving[0].iteration == first
    assert 4000 < first < 4000 + window
    assert loss.leaving[0].deviation == pytest.approx(ratio(first) - 1)
    assert loss.leaving == [point for point in loss.points if point.iteration >= first]
    assert loss.worst is not None and loss.worst.deviation == pytest.approx(factor - 1)
    assert found['lr'].inside and found['mIoU'].inside


def test_a_tolerance_moves_the_verdict():
    reference = curves(spread=0.0)
    run = scaled(scaled(reference, 'loss', 1.1), 'mIoU', 1.02)
    assert compared(run, reference)['loss'].inside
    assert compared(run, reference, Rules(loss=0.11))['loss'].inside
    assert compared(run, reference, Rules(loss=0.09))['loss'].inside is False
    assert compared(run, reference)['mIoU'].inside
    tight = compared(run, reference, Rules(miou=0.5))['mIoU']
    assert tight.leaving[0].iteration == next(at for at, value in reference['mIoU'].items() if 0.02 * value > 0.5)


def test_a_difference_of_just_the_tolerance_is_inside():
    assert 4.4 - 3.4 > 1.0
    run, reference = {'mIoU': {1000: 4.4, 2000: 46.2}}, {'mIoU': {1000: 3.4, 2000: 47.2}}
    assert compared(run, reference)['mIoU'].inside
    assert compared({'mIoU': {1000: 4.41}}, reference)['mIoU'].inside is False


def test_iterations_outside_the_curve_are_never_compared():
    """Before its first and after its last point the run is far off, which must not count."""
    reference = curves(last=5000, first=1000)
    run = curves(every=25, seed=1)
    wild = {name: {at: value if 1000 <= at <= 5000 else 1e9 for at, value in curve.items()}
            for name, curve in run.items()}
    for name, quantity in compared(wild, reference).items():
        assert quantity.inside, name
        assert all(1000 <= point.iteration <= 5000 for point in quantity.points)
        assert quantity.outside_curve == tuple(at for at in wild[name] if not 1000 <= at <= 5000)
        assert not set(quantity.outside_curve) & set(quantity.unmatched)


def test_scores_are_never_interpolated():
    run, reference = {'mIoU': {500: 1.0, 1000: 30.0, 1500: 99.0, 2000: 40.0}}, {'mIoU': {1000: 30.0, 2000: 40.0}}
    quantity = compared(run, reference)['mIoU']
    assert [point.iteration for point in quantity.points] == [1000, 2000]
    assert (quantity.outside_curve, quantity.unmatched, quantity.inside) == ((500,), (1500,), True)


def test_rates_are_judged_where_both_were_logged():
    """The end of the warm-up lies between two points of the reference, so the line misses it there."""
    found = compared(curves(every=10), curves())['lr']
    assert {point.iteration % 50 for point in found.judged} == {0}
    shown = [point for point in found.points if point.inside is None]
    assert max(abs(point.deviation) for point in shown) > RULES.lr
    apart = compared({'lr': {75: 3e-5, 125: 3e-5}}, {'lr': {50: 3e-5, 100: 3e-5, 150: 3e-5}})['lr']
    assert apart.inside and len(apart.judged) == 2
    assert apart.notes == ('no iteration at which both were logged: judged at interpolated points',)


def test_a_rate_that_jumps_is_outside_from_there_on():
    found = compared(scaled(curves(), 'lr', 1.01, after=3000), curves())['lr']
    assert found.inside is False and found.leaving[0].iteration == 3050
    assert found.leaving[0].deviation == pytest.approx(0.01)
    assert found.leaving[0].compared == (found.leaving[0].run, found.leaving[0].reference)


def test_another_base_rate_is_outside_and_its_factor_is_said():
    found = compared(scaled(curves(last=4000), 'lr', 2.0), curves())['lr']
    assert found.inside is False
    assert found.notes == ('the rate of the run is 2 times that of the reference throughout: another base rate, or '
                           'another layer-wise decay',)
    assert not compared(curves(), curves())['lr'].notes
    one = compared({'lr': {50: 2e-5}}, {'lr': {50: 1e-5}})['lr']
    assert one.inside is False and one.leaving[0].deviation == pytest.approx(1.0)


def test_a_log_of_the_base_rate_is_compared_with_that_of_the_run():
    """With layer-wise decay the first group of 48 blocks has 0.95 ** 49 of it."""
    run = {**scaled(curves(), 'lr', 0.95**49), 'base_lr': curves()['lr']}
    found = compared(run, curves())['lr']
    assert found.inside and any('base rate' in note for note in found.notes)
    same = compared(run, scaled(curves(), 'lr', 0.95**49))['lr']
    assert same.inside and not same.notes
    assert compared(run, scaled(curves(), 'lr', 0.5))['lr'].inside is False


def test_rates_as_printed_with_four_digits_are_inside():
    printed = {'lr': {at: float(f'{value:.3e}') for at, value in curves()['lr'].items()}}
    assert compared(curves(), printed)['lr'].inside
    assert compared(scaled(curves(), 'lr', 0.0809947), printed)['lr'].inside is False


def test_a_lost_loss_is_outside_at_once_and_in_no_mean():
    run, reference = curves(seed=1), curves()
    run['loss'][150] = math.nan
    run['loss'][4200] = math.inf
    loss = compared(run, reference)['loss']
    assert [point.iteration for point in loss.leaving] == [150, 4200]
    assert loss.notes == ('the run is nan or inf at 2 of 160 points, first 150',)
    assert loss.worst is not None and loss.worst.iteration == 150
    assert all(math.isfinite(value) for point in loss.judged if point.finite for value in point.compared)


def test_a_reference_that_is_lost_is_not_compared():
    run, reference = curves(every=25), curves()
    for curve in reference.values():
        curve[3000] = math.nan
    found = compared(run, reference)
    assert all(quantity.inside for quantity in found.values())
    unjudged = {name: [point.iteration for point in quantity.points if point.inside is None and point.iteration > 2000]
                for name, quantity in found.items()}
    assert unjudged['loss'] == [2975, 3000, 3025] and unjudged['mIoU'] == [3000] and 3000 in unjudged['lr']
    assert found['loss'].notes == ('the reference is nan or inf at 3 of 319 points, first 2975',)


def test_a_range_shorter_than_the_window_is_judged_once_at_its_end():
    loss = compared(curves(last=600), curves(last=800))['loss']
    assert [point.iteration for point in loss.judged] == [600]
    assert compared(scaled(curves(last=600), 'loss', 1.2), curves())['loss'].leaving[0].iteration == 600


def test_what_one_of_them_lacks_is_said():
    run = curves()
    del run['mIoU']
    found = compared(run, {'loss': curves()['loss'], 'val/mIoU': {1000: 3.0}})
    assert (found['mIoU'].inside, found['mIoU'].notes) == (None, ('the run logged no mIoU',))
    assert found['lr'].notes == ('the reference logged no lr',)
    assert found['loss'].inside
    assert compared({'val/mIoU': {1000: 3.5}}, {'mIoU': {1000: 3.0}})['mIoU'].inside


@pytest.mark.parametrize(
    'run', [{}, {'time': {1: 2.0}}, curves(first=END + 50, last=END + 500), {'mIoU': {1500: 40.0}}])
def test_nothing_in_common(run: Curves):
    with pytest.raises(UserError, match='nothing in common to compare: 3 problems') as error:
        compare_curves(run, curves(), RULES)
    assert 'reference 160 points, iterations 50 to 8000' in str(error.value)


def test_tolerances_must_be_positive():
    with pytest.raises(UserError, match='3 problems') as error:
        Rules(loss=0.0, miou=-1.0, window=0)
    assert 'miou=-1.0 must be a positive number' in str(error.value)
    with pytest.raises(UserError, match='lr=nan'):
        Rules(lr=math.nan)


def test_the_table_lists_round_iterations_and_every_common_evaluation():
    run, reference = curves(last=END, seed=1), curves(last=6000)
    run['mIoU'][1500] = 30.0
    quantities = compare_curves(scaled(run, 'mIoU', 0.9), reference, RULES)
    assert listed_iterations(quantities) == [*range(500, END + 1, 500)]
    rows = {line.split()[0]: line.split() for line in table(quantities, RULES).splitlines()}
    loss, lr, miou = quantities
    at = next(point for point in loss.points if point.iteration == 3000)
    assert rows['3,000'][1:4] == [f'{at.compared[1]:.4f}', f'{at.compared[0]:.4f}', f'{1 + at.deviation:.3f}']
    assert rows['3,000'][4:7] == ['2.500e-05', '2.500e-05', '1.0000']
    assert rows['3,000'][7:] == [f'{mmcv_logs.miou(3000):.2f}', f'{0.9 * mmcv_logs.miou(3000):.2f}',
                                 f'{-0.1 * mmcv_logs.miou(3000):+.2f}*']
    assert rows['500'][3].startswith('(')
    assert rows['7,000'][1:] == ['off', 'curve'] * 3


def test_evaluations_between_round_iterations_are_listed():
    run = {'loss': dict.fromkeys(range(7, 12010, 7), 1.0), 'mIoU': {1234: 10.0, 1300: 3.0}}
    quantities = compare_curves(run, {'loss': {50: 1.0, 12500: 1.0}, 'mIoU': {1234: 10.0, 5000: 30.0}}, RULES)
    shown = listed_iterations(quantities)
    assert 1234 in shown and len(shown) == 13
    assert all(at % 1000 in (*range(4), *range(997, 1000)) for at in shown if at != 1234)
    assert '~1.0000' in table(quantities, RULES)


def test_the_verdicts_in_words():
    run = scaled(scaled(curves(every=25, spread=0.0), 'loss', 1.3, after=4000), 'mIoU', 0.9, after=2000)
    reference = curves(last=6000, first=100, spread=0.0)
    quantities = compare_curves(run, reference, RULES)
    text = ' '.join(verdicts(quantities, RULES).split())
    first = quantities[0].leaving[0].iteration
    assert f'loss: outside +-15 %, first {1 + quantities[0].leaving[0].deviation:.3f} at {first:,} ' in text
    assert f'(mean over {first - 999:,} to {first:,})' in text
    assert 'lr: inside +-0.1 %, worst 1.0000' in text
    assert 'mIoU: outside +-1 points, first -4.08 at 3,000, 4 points in all' in text
    assert '83 points outside the curve, not compared: 25 to 75, 6,025 to 8,000' in text
    assert '2 points outside the curve, not compared: 7,000 to 8,000' in text
    apart = compare_curves({'mIoU': {1000: 1.0, 1500: 2.0, 2000: 3.0}}, {'mIoU': {1000: 1.0, 2000: 3.0}}, RULES)
    assert '1 point without an evaluation of the reference, not compared: 1,500' in verdicts(apart, RULES)
    assert 'loss: not compared\n  the run logged no loss' in verdicts(apart, RULES)


def test_data_for_other_programs():
    run, reference = sources(curves(seed=1), curves(last=6000))
    run.curves['loss'][150] = math.nan
    quantities = compare_curves(run.curves, reference.curves, RULES)
    data = as_data(run, reference, quantities, RULES)
    assert json.loads(json.dumps(data, allow_nan=False)) == data
    assert data['sources']['reference'] == {'name': 'published:y', 'sha256': {'y.log': 'cd' * 32}, 'notes': []}
    assert data['rules'] == {'loss': 0.15, 'lr': 0.001, 'miou': 1.0, 'window': 1000}
    loss = data['quantities']['loss']
    assert (data['inside'], loss['verdict'], loss['first_outside']) == (False, 'outside', 150)
    assert loss['worst'] == {'iteration': 150, 'deviation': 'nan'}
    assert [row['iteration'] for row in loss['points']] == list(range(50, 6001, 50))
    assert loss['points'][2]['run'] == 'nan' and loss['points'][2]['inside'] is False
    assert tuple(loss['points'][-1]['compared'].values()) == quantities[0].points[-1].compared
    assert loss['outside_curve'] == list(range(6050, END + 1, 50))
    assert data['quantities']['mIoU']['verdict'] == 'inside'


def pixels(path: pathlib.Path) -> np.ndarray:
    with Image.open(path) as image:
        assert image.format == 'PNG'
        return np.asarray(image.convert('RGB')).astype(int)


def reddish(picture: np.ndarray) -> int:
    red, green, blue = np.moveaxis(picture, -1, 0)
    return int(((red > 190) & (green < 70) & (blue < 70)).sum())


def test_the_picture_has_both_curves_and_marks_what_leaves(tmp_path: pathlib.Path):
    def draw(run: Curves, name: str) -> np.ndarray:
        ours, theirs = sources(run, curves())
        quantities = compare_curves(run, theirs.curves, RULES)
        return pixels(draw_comparison(ours, theirs, quantities, tmp_path / 'new' / f'{name}.png'))

    inside = draw(curves(seed=1), 'inside')
    assert min(inside.shape[:2]) > 600
    blue, orange = ((np.abs(inside - colour).max(-1) < 20).sum() for colour in ((31, 119, 180), (255, 127, 14)))
    assert blue > 500 and orange > 500
    assert reddish(inside) == 0
    for name in ('loss', 'lr', 'mIoU'):
        assert reddish(draw(scaled(curves(seed=1), name, 1.4, after=4000), name)) > 50
    lost = curves(seed=1)
    lost['loss'][2000] = math.nan
    assert reddish(draw(lost, 'lost')) > 50


@pytest.mark.parametrize('run', [{'mIoU': {1000: 20.0}}, {'loss': {60: 3.0, 70: 3.1}}, {'loss': {100: 0.0, 200: 0.0}}])
def test_little_data_is_drawn_too(tmp_path: pathlib.Path, run: Curves):
    ours, theirs = sources(run, curves())
    quantities = compare_curves(run, theirs.curves, RULES)
    assert pixels(draw_comparison(ours, theirs, quantities, tmp_path / 'a.png')).std() > 0
    assert table(quantities, RULES)
