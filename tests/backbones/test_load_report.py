from __future__ import annotations

import pytest

from internvl_dense.backbones.load_report import CheckpointMismatchError, LoadReport, compact, ranges


def block(*numbers: int, names: tuple[str, ...] = ('a', 'b')) -> list[str]:
    return [f'blocks.{number}.{name}' for number in numbers for name in names]


@pytest.mark.parametrize(('numbers', 'text'), [
    ([], ''), ([4], '4'), ([45, 47, 46], '45-47'), ([0, 1, 3, 5, 6, 6], '0-1, 3, 5-6'),
])
def test_ranges(numbers, text):
    assert ranges(numbers) == text


@pytest.mark.parametrize(('keys', 'texts'), [
    ([], []),
    (block(2, 3), ['blocks 2-3']),
    (block(3), ['block 3']),
    (block(0, 1, names=('b',)), ['blocks 0-1: b']),
    ([*block(0, names=('b',)), *block(2, 3), 'p', 'q'], ['block 0: b', 'blocks 2-3', 'p, q']),
    ([f'k{i}' for i in range(9)], ['k0, k1, k2, k3, k4, k5 and 3 more']),
])
def test_compact(keys, texts):
    assert compact(keys, block(0, 1, 2, 3)) == texts


def report(**kwargs: object) -> LoadReport:
    return LoadReport(path='/a/b.pth', dialect='official', variant='v', model_keys=tuple(block(0, 1)), **kwargs)


def test_a_clean_report_raises_nothing():
    report(known_unused=('head.weight',), dropped=('blocks.2.a',), resized={'p': ((1,), (2,))}).raise_unless_clean()


def test_missing_keys_raise_unless_named():
    missing = report(missing=('cls_token', 'norm.weight'))
    missing.raise_unless_clean(['cls_*', 'norm.weight'])
    with pytest.raises(CheckpointMismatchError) as error:
        missing.raise_unless_clean(['norm.*'])
    assert str(error.value) == (
        "b.pth does not fit 'v': cls_token missing. No other registered variant fits. "
        'Keys that may be missing can be named in allow_missing.'
    )


def test_rows_are_aligned_and_name_what_is_known():
    shown = str(report(loaded=('a',), num_parameters=7, dropped=('blocks.2.a', 'blocks.2.b'), file_keys=tuple(block(2)),
                       known_unused=('clip_projector.a', 'clip_projector.b', 'head.weight')))
    assert shown.splitlines() == [
        'v from /a/b.pth',
        '  dialect          official',
        '  loaded           1 tensors, 7 parameters',
        '  dropped          block 2',
        '  known, not used  clip_projector (2), head (1)',
    ]


@pytest.mark.parametrize(('fits', 'advice'), [
    (('x',), "'x' fits."), (('x', 'y'), "'x' or 'y' fit."), (('v',), "'v' without overrides fits."),
])
def test_advice_names_what_fits(fits, advice):
    with pytest.raises(CheckpointMismatchError) as error:
        report(unexpected=('z',), fits=fits).raise_unless_clean()
    assert str(error.value) == f"b.pth does not fit 'v': z unexpected. {advice}"
