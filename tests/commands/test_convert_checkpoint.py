from __future__ import annotations

import builtins
import json
import os
import pathlib
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
from internvl_dense.safe_load import UnsafeCheckpointError, load_file, save_file
from tests import malicious
from tests.checkpoints import random_state
from tests.published_layouts import importable, write_deepspeed_folder, write_mmcv_config_objects

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
    assert 'dialect          hf\n' in capsys.readouterr().out


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


@pytest.mark.parametrize(('name', 'layout'), [
    ('x.bin', 'official'), ('folder', 'official'), ('x.pth', 'hf'), ('x.bin', 'plain'), ('folder', 'plain'),
])
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
    assert '--to {official,hf,plain}' in result.stdout


def test_layout_is_required(capsys):
    with pytest.raises(SystemExit):
        build_parser().parse_args(['a', 'b'])
    assert '--to' in capsys.readouterr().err


# --- plain ----------------------------------------------------------------------------------------------------------

def test_published_segmentor_to_plain(tmp_path, state, capsys):
    model = {f'backbone.{key}': value.bfloat16() for key, value in state.items()}
    convert(write_mmcv_config_objects(tmp_path / 'x.pth', model), tmp_path / 'y.pth', '--to', 'plain')
    plain = torch.load(tmp_path / 'y.pth', weights_only=True)  # torch alone reads it
    assert_same(plain['state_dict'], model)
    assert plain['meta']['best_score'] == 0.549 and plain['meta']['CLASSES'] == ['wall', 'building', 'sky']
    assert plain['meta']['cfg'] == plain['meta']['config'] and plain['meta']['cfg']['gpu_ids'] == [0, 1]
    assert type(plain['state_dict']) is dict and 'left out' not in capsys.readouterr().out


def test_plain_safetensors_holds_the_state_dict(tmp_path, capsys):
    shared = torch.arange(4.0)
    save_file({'state_dict': {'a': shared, 'b': shared, 'c': shared[2:], 'd': torch.ones(2).bfloat16(), 'n': 3},
               'meta': {'iter': 1}}, tmp_path / 'x.pth')
    convert(tmp_path / 'x.pth', tmp_path / 'y.safetensors', '--to', 'plain')
    assert_same(load_safetensors(tmp_path / 'y.safetensors'),
                {'a': shared, 'b': shared, 'c': shared[2:], 'd': torch.ones(2).bfloat16()})
    assert "left out (2):\n  - 'meta' is beside the state dict\n  - 'n' in the state dict is no tensor" in (
        capsys.readouterr().out)
    save_file({'meta': 1}, tmp_path / 'z.pth')
    with pytest.raises(UserError, match=r'no state dict in it.*name DST \.pth'):
        convert(tmp_path / 'z.pth', tmp_path / 'z.safetensors', '--to', 'plain')


def test_plain_of_folders(tmp_path, state):
    convert(write_deepspeed_folder(tmp_path / 'iter', state), tmp_path / 'y.pth', '--to', 'plain')
    plain = load_file(tmp_path / 'y.pth')
    assert_same(plain['module'], state)
    assert plain['sparse_tensor_module_names'] == [] and plain['param_shapes'][0]['cls_token'] == [1, 1, 128]
    save_file(state, tmp_path / 'x.pth')
    convert(tmp_path / 'x.pth', tmp_path / 'hf', '--to', 'hf')
    convert(tmp_path / 'hf', tmp_path / 'z.pth', '--to', 'plain')
    assert_same(load_file(tmp_path / 'z.pth'), to_foreign(state, HF))


def test_options_that_say_nothing(tmp_path, source):
    with pytest.raises(UserError, match=r'(?s)3 problems.*--variant.*--dtype.*--yes answers'):
        convert(source, tmp_path / 'y.pth', '--to', 'plain', '--variant', 'x', '--dtype', 'bf16', '--yes')


# --- trust ----------------------------------------------------------------------------------------------------------

class Foreign:
    """Pickles as an object of a program that is not installed."""

    __module__ = 'program.that.is_absent'

    def __init__(self, **content: object) -> None:
        vars(self).update(content)


RECORD = """
import builtins, json, os, sys
builtins.internvl_dense_sentinel = sys.modules['internvl_dense_sentinel'] = sys
open({path!r}, 'w').write(json.dumps([os.getpid(), dict(os.environ), os.getcwd(), sys.stdin.isatty()]))
"""


@pytest.fixture
def trusted(tmp_path, state):
    """A file whose payload records the process that runs it."""
    weights = {key: value.bfloat16() for key, value in state.items()}
    record = malicious.Call(builtins.exec, RECORD.format(path=str(tmp_path / 'record.json')))
    content = {'module': weights, 'shared': [weights['pos_embed'], weights['pos_embed'][:, 1:]], 'epoch': 3,
               'payload': record, 'args': Foreign(lr=1), 'call': malicious.Call(os.getpid), 'nn': torch.nn.Linear(2, 1)}
    path = tmp_path / 'trusted' / 'x.pth'
    path.parent.mkdir()
    with importable(Foreign):
        return malicious.saved(content, path)


def left_in(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_refused_file_names_the_way_out_and_runs_nothing(tmp_path, trusted):
    for layout in ('plain', 'official'):
        with pytest.raises(UnsafeCheckpointError, match=r'x\.pth DST\.pth --to plain --trust-pickle'):
            convert(trusted, tmp_path / 'y.pth', '--to', layout)
    assert left_in(tmp_path) == ['trusted']


def test_trust_needs_an_answer(tmp_path, trusted, monkeypatch, capsys):
    with open(os.devnull) as nothing:
        monkeypatch.setattr(sys, 'stdin', nothing)
        with pytest.raises(UserError, match='no terminal to ask on.*--yes'):
            convert(trusted, tmp_path / 'y.pth', '--to', 'plain', '--trust-pickle')
    shown = capsys.readouterr().out
    for name in ('builtins.exec', 'posix.getpid', 'program.that.is_absent.Foreign', 'torch.nn.modules.linear.Linear'):
        assert f'  - {name}\n' in shown
    digest = subprocess.run(['sha256sum', trusted], capture_output=True, text=True, check=True).stdout.split()[0]
    assert f'sha256 {digest}' in shown and 'only if you know who that is and trust them' in shown
    assert left_in(tmp_path) == ['trusted']


@pytest.mark.parametrize('answer', ['no\n', '\n', 'y\n', '\x04'])
def test_trust_takes_only_yes_from_a_terminal(tmp_path, trusted, monkeypatch, answer):
    ours, theirs = os.openpty()
    os.write(ours, answer.encode())
    with open(theirs) as terminal:
        monkeypatch.setattr(sys, 'stdin', terminal)
        with pytest.raises(UserError, match='was not opened: the answer was'):
            convert(trusted, tmp_path / 'y.pth', '--to', 'plain', '--trust-pickle')
    os.close(ours)
    assert left_in(tmp_path) == ['trusted']


def test_trusted_file_is_opened_apart(tmp_path, trusted, state, monkeypatch, capsys):
    monkeypatch.setenv('HF_TOKEN', 'secret')
    (ours, theirs), before = os.openpty(), os.dup(0)
    os.write(ours, b'yes\n')
    os.dup2(theirs, 0)  # what a process would inherit
    try:
        with open(theirs) as terminal:
            monkeypatch.setattr(sys, 'stdin', terminal)
            convert(trusted, tmp_path / 'new' / 'y.pth', '--to', 'plain', '--trust-pickle')
    finally:
        os.dup2(before, 0)
        os.close(before)
        os.close(ours)
    pid, environment, folder, asks = json.loads((tmp_path / 'record.json').read_text())
    assert pid != os.getpid() and not asks
    assert not hasattr(builtins, malicious.SENTINEL) and not malicious.sentinels()
    assert set(environment) <= {'PATH', 'HOME', 'TMPDIR', 'CUDA_VISIBLE_DEVICES', 'LD_LIBRARY_PATH', 'LC_CTYPE'}
    assert environment['HOME'] == folder != os.environ['HOME'] and not os.path.exists(folder)
    plain = torch.load(tmp_path / 'new' / 'y.pth', weights_only=True)
    assert_same(plain['module'], {key: value.bfloat16() for key, value in state.items()})
    whole, part = plain['shared']
    assert whole.data_ptr() == plain['module']['pos_embed'].data_ptr() == part.untyped_storage().data_ptr()
    assert plain['epoch'] == 3 and plain['call'] == pid and plain['payload'] is None
    assert plain['nn'].keys() == {'weight', 'bias'} and 'args' not in plain
    assert "left out (1):\n  - ['args'] is program.that.is_absent.Foreign\n" in capsys.readouterr().out
    assert left_in(tmp_path) == ['new', 'record.json', 'trusted'] and left_in(tmp_path / 'new') == ['y.pth']


def test_trusted_file_to_another_layout(tmp_path, trusted, state, capsys):
    convert(trusted, tmp_path / 'y.safetensors', '--to', 'official', '--trust-pickle', '--yes')
    assert_same(load_safetensors(tmp_path / 'y.safetensors'), {key: value.bfloat16() for key, value in state.items()})
    assert f'internvit_debug from {trusted}\n' in capsys.readouterr().out


def test_trust_that_is_not_needed(tmp_path, source, monkeypatch, capsys):
    monkeypatch.setattr(subprocess, 'Popen', lambda *_, **__: pytest.fail('a process was started'))
    convert(source, tmp_path / 'y.pth', '--to', 'plain', '--trust-pickle')
    assert f'--trust-pickle is not needed: {source} holds plain data' in capsys.readouterr().out
    assert (tmp_path / 'y.pth').exists()


def test_trust_is_no_cure_for_damage(tmp_path, trusted):
    os.truncate(trusted, trusted.stat().st_size // 2)
    with pytest.raises(UserError, match='whose end is missing'):
        convert(trusted, tmp_path / 'y.pth', '--to', 'plain', '--trust-pickle', '--yes')


# The last one leaves a file that the safe reader refuses, after the plain one was written.
SWAP = """
import atexit, os, shutil, sys
atexit.register(lambda: shutil.copy({path!r}, os.path.join(sys.argv[-1], 'plain.pth')))
"""


@pytest.mark.parametrize(('code', 'options', 'message'), [
    ('raise RuntimeError("no \x1b[2J way")', [], r'(?s)ended with status 1.*RuntimeError: no \?\[2J way'),
    ('import time; time.sleep(60)', ['--timeout', '0.5'], r'stopped after 0\.5 s; give it more with --timeout'),
    (SWAP, [], r'left no plain data \(.*is refused'),
], ids=['error', 'timeout', 'swap'])
def test_failing_process_leaves_nothing_behind(tmp_path, code, options, message):
    source = tmp_path / 'trusted' / 'x.pth'
    source.parent.mkdir()
    payload = malicious.Call(builtins.exec, code.format(path=str(source)))
    malicious.saved({'a': torch.ones(2), 'payload': payload}, source)
    with pytest.raises(UserError, match=message) as caught:
        convert(source, tmp_path / 'new' / 'y.pth', '--to', 'plain', '--trust-pickle', '--yes', *options)
    assert '\x1b' not in str(caught.value) and str(source) in str(caught.value)
    assert left_in(tmp_path) == ['trusted']


def test_process_takes_those_it_started_with_it(tmp_path):
    code = f"""
import os, subprocess
open({str(tmp_path / 'pid')!r}, 'w').write(str(subprocess.Popen(['sleep', '60']).pid))
os._exit(0)
"""
    source = malicious.saved([malicious.Call(builtins.exec, code)], tmp_path / 'x.pth')
    start = time.perf_counter()
    with pytest.raises(UserError, match='ended with status 0 and left no result'):
        convert(source, tmp_path / 'y.pth', '--to', 'plain', '--trust-pickle', '--yes')
    assert time.perf_counter() - start < 30
    assert left_in(tmp_path) == ['pid', 'x.pth']
    stat = pathlib.Path('/proc', (tmp_path / 'pid').read_text(), 'stat')
    assert not stat.exists() or stat.read_text().rpartition(')')[2].split()[0] in 'ZX'  # gone, or dead
