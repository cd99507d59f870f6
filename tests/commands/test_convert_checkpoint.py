from __future__ import annotations

import json
import subprocess
import sys
import textwrap
import time

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file as load_safetensors

from internvl_dense.backbones.dialects import DIALECTS, HF, to_foreign
from internvl_dense.backbones.variants import VARIANTS
from internvl_dense.commands.convert_checkpoint import build_parser, hf_config, main
from internvl_dense.errors import UserError
from internvl_dense.safe_load import load_file, save_file
from tests.checkpoints import random_state

DEBUG = VARIANTS.get('internvit_debug')


@pytest.fixture
def state():
    return random_state(DEBUG)


@pytest.fixture
def source(tmp_path, state):
    save_file({'module': state}, tmp_path / 'source.pth')
    return tmp_path / 'source.pth'


def convert(*arguments: object) -> None:
    assert main([str(argument) for argument in arguments]) == 0


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], value) for key, value in expected.items())


@pytest.mark.parametrize('name', DIALECTS)
def test_every_dialect_to_official(tmp_path, state, name):
    dialect = DIALECTS[name]
    save_file(to_foreign(state, dialect, dialect.prefixes[0]), tmp_path / 'x.bin')
    convert(tmp_path / 'x.bin', tmp_path / 'new' / 'x.pth', '--to', 'official')
    assert_same(load_file(tmp_path / 'new' / 'x.pth'), state)


def test_official_to_hf_and_back(tmp_path, source, state, capsys):
    convert(source, tmp_path / 'hf', '--to', 'hf', '--variant', 'internvit_debug')
    assert f'wrote {tmp_path / "hf"}' in capsys.readouterr().out
    assert_same(load_safetensors(tmp_path / 'hf' / 'model.safetensors'), to_foreign(state, HF))
    convert(tmp_path / 'hf', tmp_path / 'back.safetensors', '--to', 'official')
    assert_same(load_safetensors(tmp_path / 'back.safetensors'), state)
    assert 'dialect   hf\n' in capsys.readouterr().out


def test_hf_folder_says_what_a_reader_needs(tmp_path, source):
    convert(source, tmp_path / 'hf', '--to', 'hf')
    config = json.loads((tmp_path / 'hf' / 'config.json').read_text())
    expected = {
        'model_type': 'intern_vit_6b', 'architectures': ['InternVisionModel'], 'hidden_size': DEBUG.embed_dim,
        'num_attention_heads': DEBUG.num_heads, 'intermediate_size': 4 * DEBUG.embed_dim,
        'num_hidden_layers': DEBUG.depth, 'image_size': DEBUG.image_size, 'patch_size': 14, 'qkv_bias': False,
        'qk_normalization': True, 'norm_type': 'rms_norm', 'layer_norm_eps': 1e-6, 'torch_dtype': 'float32',
    }
    assert {key: config[key] for key in expected} == expected
    preprocessor = json.loads((tmp_path / 'hf' / 'preprocessor_config.json').read_text())
    assert preprocessor['image_mean'] == [0.485, 0.456, 0.406]
    assert preprocessor['image_std'] == [0.229, 0.224, 0.225]
    with safe_open(tmp_path / 'hf' / 'model.safetensors', 'pt') as file:
        assert file.metadata() == {'format': 'pt'}


@pytest.mark.parametrize(('flag', 'dtype'), [('bf16', torch.bfloat16), ('fp16', torch.float16), (None, torch.float16)])
def test_dtype(tmp_path, state, flag, dtype):
    save_file({key: value.half() for key, value in state.items()}, tmp_path / 'x.pth')
    convert(tmp_path / 'x.pth', tmp_path / 'y.pth', '--to', 'official', *(['--dtype', flag] if flag else []))
    assert {value.dtype for value in load_file(tmp_path / 'y.pth').values()} == {dtype}


def test_nothing_is_resampled(tmp_path, state):
    state['pos_embed'] = torch.randn(1, 1 + 36, DEBUG.embed_dim)
    save_file(state, tmp_path / 'x.pth')
    convert(tmp_path / 'x.pth', tmp_path / 'hf', '--to', 'hf')
    assert_same(load_safetensors(tmp_path / 'hf' / 'model.safetensors'), to_foreign(state, HF))
    assert json.loads((tmp_path / 'hf' / 'config.json').read_text())['image_size'] == 6 * 14


def test_existing_destination(tmp_path, source, state):
    target = tmp_path / 'y.pth'
    target.write_text('precious')
    with pytest.raises(UserError, match='y.pth exists; .* --force'):
        convert(source, target, '--to', 'official')
    assert target.read_text() == 'precious'
    convert(source, target, '--to', 'official', '--force')
    assert_same(load_file(target), state)


def test_force_replaces_a_model_folder_but_no_other(tmp_path, source, state):
    folder = tmp_path / 'hf'
    folder.mkdir()
    (folder / 'thesis.tex').write_text('precious')
    with pytest.raises(UserError, match='holds no converted model'):
        convert(source, folder, '--to', 'hf', '--force')
    assert (folder / 'thesis.tex').exists()
    (folder / 'config.json').write_text('{}')
    (folder / 'thesis.tex').rename(folder / 'model-00002-of-00002.safetensors')
    convert(source, folder, '--to', 'hf', '--force')
    assert sorted(path.name for path in folder.iterdir()) == [
        'config.json', 'model.safetensors', 'preprocessor_config.json'
    ]


@pytest.mark.parametrize(('name', 'layout'), [('x.bin', 'official'), ('folder', 'official'), ('x.pth', 'hf')])
def test_destination_of_the_wrong_form(tmp_path, source, name, layout):
    with pytest.raises(UserError, match='layout is'):
        convert(source, tmp_path / name, '--to', layout)


def test_wrong_variant_leaves_nothing_behind(tmp_path, source):
    with pytest.raises(UserError, match="does not fit 'internvit_300m_448px'.*(?s:.)*'internvit_debug' fits"):
        convert(source, tmp_path / 'y.pth', '--to', 'official', '--variant', 'internvit_300m_448px')
    assert [path.name for path in tmp_path.iterdir()] == ['source.pth']


def test_unknown_variant_and_no_variant(tmp_path, source, state):
    with pytest.raises(UserError, match="Did you mean 'internvit_debug'"):
        convert(source, tmp_path / 'y.pth', '--to', 'official', '--variant', 'internvit_debg')
    save_file({**state, 'mystery': torch.zeros(1)}, tmp_path / 'x.pth')
    with pytest.raises(UserError, match='fits no registered variant'):
        convert(tmp_path / 'x.pth', tmp_path / 'y.pth', '--to', 'official')


def test_interrupted_run_leaves_nothing_behind(tmp_path, source, monkeypatch):
    import internvl_dense.commands.convert_checkpoint as command

    def fail(state, path):
        path.write_bytes(b'half')
        raise OSError('disk full')

    monkeypatch.setattr(command, '_save_safetensors', fail)
    with pytest.raises(OSError, match='disk full'):
        convert(source, tmp_path / 'y.safetensors', '--to', 'official')
    assert [path.name for path in tmp_path.iterdir()] == ['source.pth']


@pytest.mark.parametrize('change', [
    {'mlp': 'swiglu'}, {'num_register_tokens': 4}, {'final_norm': True}, {'cls_token': False},
])
def test_variants_that_hf_cannot_express(change):
    with pytest.raises(UserError, match='cannot be an InternVisionModel'):
        hf_config(DEBUG.replace(**change), 'float32')


def test_help_needs_no_torch(repo_root):
    code = textwrap.dedent("""
        import sys
        sys.modules.update(dict.fromkeys(('torch', 'numpy', 'safetensors')))
        from internvl_dense.commands.convert_checkpoint import main
        main(['--help'])
    """)
    start = time.perf_counter()
    result = subprocess.run([sys.executable, '-c', code], cwd=repo_root, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert time.perf_counter() - start < 1
    assert '--to {official,hf}' in result.stdout


def test_layout_is_required(capsys):
    with pytest.raises(SystemExit):
        build_parser().parse_args(['a', 'b'])
    assert '--to' in capsys.readouterr().err
