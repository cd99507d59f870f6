"""InternViT as a backbone that models of transformers build themselves."""

from __future__ import annotations

import types

import pytest
import torch

from internvl_dense import create_backbone
from internvl_dense.backbones import hf_register
from internvl_dense.errors import UserError

IMAGE = torch.randn(1, 3, 140, 112, generator=torch.Generator().manual_seed(0))


def described(**arguments) -> types.SimpleNamespace:
    config = types.SimpleNamespace()
    hf_register.set_up(config, 'internvit_debug', **arguments)
    return config


def test_values_follow_from_the_variant():
    config = described(options={'patch_size': 16, 'depth': 8, 'frozen': True})
    assert (config.hidden_size, config.patch_size, config.num_hidden_layers) == (128, 16, 8)
    assert config.out_indices == [2, 4, 6, 8] and config.out_features[0] == 'stage2'
    assert described(out_indices=[2, -1]).out_features == ['stage2', 'stage4']
    assert described(out_features=['stage1']).out_indices == [1]


@pytest.mark.parametrize(('arguments', 'message'), [
    ({'out_features': ['stage9']}, "Unknown stage 'stage9'"),
    ({'out_features': ['stage1'], 'out_indices': [2]}, r"\[2\] are \['stage2'\], out_features says \['stage1'\]"),
    ({'out_indices': [0]}, "Unknown stage 'stem'"),
    ({'out_indices': [5]}, "Unknown stage 'stage5'"),
    ({'options': {'out_indices': 'last'}}, 'write out_features'),
    ({'options': {'varient': 1}}, "Unknown backbone option 'varient'"),
])
def test_mistakes(arguments, message):
    with pytest.raises(UserError, match=message):
        described(**arguments)


def test_a_value_that_contradicts_the_variant():
    config = types.SimpleNamespace(hidden_size=64)
    with pytest.raises(UserError, match='hidden_size=64 is 128 by the variant'):
        hf_register.set_up(config, 'internvit_debug')


def test_a_library_that_lacks_what_is_needed():
    with pytest.raises(UserError, match='transformers 4.0 has no AutoBackbone, AutoConfig, PreTrainedConfig'):
        hf_register.register(types.SimpleNamespace(__version__='4.0'))


@pytest.fixture(scope='module')
def library():
    return pytest.importorskip('transformers', minversion='5')


@pytest.fixture(scope='module')
def config_class(library):
    return hf_register.register(library)


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp('weights') / 'debug.pth'
    torch.save(create_backbone('internvit_debug').state_dict(), path)
    return path


@pytest.fixture(scope='module')
def upernet(library, config_class, weights):
    config = library.UperNetConfig(backbone_config=config_class('internvit_debug', weights=str(weights)), num_labels=5,
                                   hidden_size=32, auxiliary_channels=16, pool_scales=(1, 2))
    return library.UperNetForSemanticSegmentation(config).eval()


def test_registering_twice_gives_the_same_class(library, config_class):
    assert hf_register.register(library) is config_class
    backbone = library.AutoBackbone.from_config(config_class('internvit_debug', out_features=['stage3']))
    assert backbone.channels == [128] and backbone.config.out_indices == [3]


def test_building_a_model_keeps_the_weights(upernet, weights):
    trunk = upernet.backbone.trunk.state_dict()
    assert all(torch.equal(trunk[key], value) for key, value in torch.load(weights, weights_only=True).items())


def test_a_model_trains_and_comes_back_from_its_folder(library, upernet, tmp_path):
    labels = torch.zeros(1, 140, 112, dtype=torch.long)
    outputs = upernet(IMAGE, labels=labels, output_hidden_states=True)
    outputs.loss.backward()
    assert upernet.backbone.trunk.patch_embed.proj.weight.grad.abs().sum() > 0
    assert outputs.logits.shape == (1, 5, 140, 112) and len(outputs.hidden_states) == 5
    upernet.save_pretrained(tmp_path)
    again = type(upernet).from_pretrained(tmp_path).eval()
    assert all(torch.equal(again.state_dict()[key], value) for key, value in upernet.state_dict().items())
    torch.testing.assert_close(again(IMAGE).logits, outputs.logits)


def test_other_models(library, config_class):
    tokens = config_class('internvit_debug', reshape_hidden_states=False)
    depth = library.DPTForDepthEstimation(library.DPTConfig(
        backbone_config=tokens, is_hybrid=False, neck_hidden_sizes=[8, 8, 16, 16], fusion_hidden_size=16))
    assert depth(IMAGE).predicted_depth.shape == (1, 160, 128)
    masks = library.Mask2FormerForUniversalSegmentation(library.Mask2FormerConfig(
        backbone_config=config_class('internvit_debug'), feature_size=32, mask_feature_size=32, hidden_dim=32,
        encoder_feedforward_dim=32, encoder_layers=1, decoder_layers=2, num_attention_heads=2, dim_feedforward=32,
        num_queries=5))
    assert masks(IMAGE).masks_queries_logits.shape[:2] == (1, 5)
