from __future__ import annotations

import pathlib

import pytest
import torch

from internvl_dense.backbones.checkpoint import CheckpointMismatchError
from internvl_dense.backbones.create import list_backbones
from internvl_dense.backbones.fitting import compare, expected_shapes, find_fitting, native_view
from internvl_dense.backbones.variants import VARIANTS
from internvl_dense.backbones.weight_files import TensorInfo, WeightFiles


def published(spec, grid=None) -> WeightFiles:
    """A checkpoint of a full-size variant: names and shapes without values."""
    tensors = {key: TensorInfo(shape, torch.bfloat16) for key, shape in expected_shapes(spec).items()}
    if grid:
        tensors['pos_embed'] = TensorInfo((1, 1 + grid**2, spec.embed_dim), torch.bfloat16)
    return WeightFiles(pathlib.Path(f'{spec.name}.pth'), tensors, {}, {})


@pytest.mark.parametrize('name', list_backbones())
def test_every_variant_fits_its_own_file(name):
    spec = VARIANTS.get(name)
    report = compare(native_view(published(spec)), spec, expected_shapes(spec))
    assert report.differences() == []
    assert report.resized == {}


# Parameters of the published linear segmentor at 504 px less its head, and of three blocks less.
@pytest.mark.parametrize(('name', 'total'), [
    ('internvit_6b_224px', 5_906_121_600), ('internvit_6b_448px_v2_5', 5_906_121_600 - 368_755_200),
])
def test_size_of_published_variants(name, total):
    shapes = expected_shapes(VARIANTS.get(name).replace(image_size=504))
    assert sum(torch.Size(shape).numel() for shape in shapes.values()) == total


def test_224px_weights_given_to_a_448px_variant():
    view = native_view(published(VARIANTS.get('internvit_6b_224px')))
    spec = VARIANTS.get('internvit_6b_448px_v1_2')
    report = compare(view, spec, expected_shapes(spec))
    report.fits = tuple(find_fitting(view, map(VARIANTS.get, VARIANTS.list()), ()))
    with pytest.raises(CheckpointMismatchError) as error:
        report.raise_unless_clean()
    assert str(error.value) == (
        "internvit_6b_224px.pth does not fit 'internvit_6b_448px_v1_2': blocks 45-47 unexpected. "
        "It has 48 blocks, the variant 45; 'internvit_6b_224px' fits."
    )


@pytest.mark.parametrize(('source', 'grid', 'fits'), [
    ('internvit_6b_224px', 16, ['internvit_6b_224px']),
    ('internvit_6b_224px', 32, ['internvit_6b_448px_v1_0']),  # 48 blocks at 448 px
    ('internvit_6b_448px_v1_2', 32, [f'internvit_6b_448px_{version}' for version in ('v1_0', 'v1_2', 'v1_5', 'v2_5')]),
    ('internvit_300m_448px', 32, ['internvit_300m_448px']),
])
def test_which_variants_fit(source, grid, fits):
    view = native_view(published(VARIANTS.get(source), grid))
    assert find_fitting(view, map(VARIANTS.get, VARIANTS.list()), ()) == fits
