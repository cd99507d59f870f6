"""`fetch` as a user calls it."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from internvl_dense.backbones.locate import ENVIRONMENT
from internvl_dense.backbones.spec import BackboneSpec, WeightsInfo
from internvl_dense.backbones.variants import VARIANTS
from internvl_dense.commands.fetch import Printer, build_parser, main
from internvl_dense.errors import UserError, run
from internvl_dense.hub.fetching import DEFAULT_RETRIES
from internvl_dense.zoo import REPOSITORY, ZOO, ReleasedModel
from tests.fetches import CONTENT, FOLDER_FILES, LOG, PLAIN, SHA256, names_in
from tests.hub_server import HubServer, alone

CELL = ReleasedModel('small_cell', 'ade20k', 'stem', 50.0, size_gb=len(CONTENT) / 1e9)
VARIANT = BackboneSpec(
    'small_variant', embed_dim=8, depth=4, num_heads=2, image_size=28,
    weights=WeightsInfo('trunk.pth', 'someone/small', 'BSD', 'this test', size_gb=2 * len(CONTENT) / 1e9))


@pytest.fixture
def hub(tmp_path, monkeypatch) -> Iterator[HubServer]:
    """A small cell and a small variant in the tables and on the server; an empty working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(ENVIRONMENT, raising=False)
    monkeypatch.setitem(ZOO._items, CELL.name, CELL)
    monkeypatch.setitem(VARIANTS._items, VARIANT.name, VARIANT)
    with alone(monkeypatch) as server:
        server.plain |= {*PLAIN, CELL.log}
        server.publish(REPOSITORY, {CELL.file: CONTENT, CELL.log: LOG, 'trunk.pth': CONTENT * 2})
        server.publish('someone/small', FOLDER_FILES)
        yield server


def test_a_variant_to_the_place_where_recipes_look(hub, tmp_path, capsys):
    assert main([VARIANT.name]) == 0
    assert (tmp_path / 'pretrained' / 'trunk.pth').read_bytes() == CONTENT * 2
    text = capsys.readouterr().out
    for part in (f'small_variant: {REPOSITORY} on 127.0.0.1:{hub.port}', 'licence: BSD',
                 'trunk.pth: 0.3 MB, to download', 'complete, record in trunk.pth.json',
                 f"next: recipes find it in {tmp_path / 'pretrained'}"):
        assert part in text, part
    before = len(hub.seen)
    assert main([VARIANT.name]) == 0
    assert len(hub.seen) == before and 'is here already' in capsys.readouterr().out


def test_the_folder_of_a_variant_elsewhere(hub, tmp_path, monkeypatch, capsys):
    assert main([VARIANT.name, '--folder', '--to', 'else where']) == 0
    assert {'config.json', 'fetched.json'} < names_in(tmp_path / 'else where' / 'small')
    where = tmp_path / 'else where'
    assert f"next: export {ENVIRONMENT}='{where}', and recipes find it" in capsys.readouterr().out
    monkeypatch.setenv(ENVIRONMENT, str(tmp_path / 'else where'))
    assert main([VARIANT.name, '--folder', '--to', 'else where']) == 0
    assert f'next: recipes find it in {tmp_path / "else where"}' in capsys.readouterr().out


def test_a_cell(hub, tmp_path, capsys):
    assert main([CELL.name, '--to', 'here']) == 0
    assert names_in(tmp_path / 'here') == {'stem.pth', 'stem.pth.json', 'stem.log', 'stem.log.json'}
    text = capsys.readouterr().out
    for part in (f'  sha256 {SHA256}  stem.pth', 'this sha256 of stem.pth was unknown so far', 'row small_cell',
                 'next: internvl-dense reproduce small_cell --weights here/stem.pth --data-root DIR'):
        assert part in text, part


def test_a_cell_whose_checksum_is_known(hub, monkeypatch, capsys):
    monkeypatch.setitem(ZOO._items, CELL.name, dataclasses.replace(CELL, sha256=SHA256))
    assert main([CELL.name]) == 0
    assert 'unknown so far' not in capsys.readouterr().out
    monkeypatch.setitem(ZOO._items, CELL.name, dataclasses.replace(CELL, sha256='0' * 64))
    with pytest.raises(UserError, match=f'the server announces sha256 {SHA256}, the table has 0000'):
        main([CELL.name, '--to', 'other'])


def test_a_cell_without_a_log_on_the_server(hub, tmp_path, capsys):
    hub.publish(REPOSITORY, {CELL.file: CONTENT})
    assert main([CELL.name]) == 0
    text = capsys.readouterr().out
    assert 'It is left out.' in text and 'stem.log: complete' not in text and 'reproduce small_cell' in text
    with pytest.raises(UserError, match=r'has no stem\.log'):
        main([CELL.name, '--log'])


def test_the_log_alone(hub, tmp_path, capsys):
    assert main([CELL.name, '--log', '--to', 'my logs']) == 0
    assert names_in(tmp_path / 'my logs') == {'stem.log', 'stem.log.json'}
    assert "next: internvl-dense compare RUN 'published:my logs/stem.log'" in capsys.readouterr().out


def test_dry_run(hub, tmp_path, capsys):
    assert main([CELL.name, '--dry-run']) == 0
    text = capsys.readouterr().out
    assert text.endswith('dry run: nothing was downloaded\n') and 'stem.log: 16 bytes, to download' in text
    assert not names_in(tmp_path) and not hub.contents()


def test_list(hub, monkeypatch, capsys):
    monkeypatch.setenv('HF_HUB_OFFLINE', '1')
    assert main(['--list']) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ['name', 'file', 'size', 'licence', 'mIoU', 'sha256']
    row, = (line for line in lines if line.startswith('head_tuning_internvit_6b_224px_ade20k '))
    assert row.split()[1:] == ['upernet_intern_vit_6b_504_80k_ade20k_bs16_lr4e-5_frozen.pth', 'not', 'stated', 'MIT',
                               '54.9', 'unknown', 'until', 'first', 'seen']
    assert len(lines) == 1 + len(ZOO.list()) + len([name for name in VARIANTS.list() if VARIANTS.get(name).weights])
    assert not hub.seen


def test_options_reach_the_fetch(hub, tmp_path, monkeypatch, capsys):
    first = hub.heads[REPOSITORY]
    hub.publish(REPOSITORY, {CELL.file: CONTENT[::-1]})
    monkeypatch.setenv('HF_ENDPOINT', 'https://nowhere.invalid')
    assert main([CELL.name, '--revision', first, '--endpoint', hub.endpoint, '--to', 'old']) == 0
    assert (tmp_path / 'old' / 'stem.pth').read_bytes() == CONTENT
    monkeypatch.setitem(ZOO._items, CELL.name, dataclasses.replace(CELL, size_gb=5.0))
    with pytest.raises(UserError, match='--any-size'):
        main([CELL.name, '--endpoint', hub.endpoint, '--to', 'new'])
    assert main([CELL.name, '--endpoint', hub.endpoint, '--to', 'new', '--any-size']) == 0
    hub.cut_after, before = 0, len(hub.contents())
    with pytest.raises(UserError, match='A second run resumes'):
        main([CELL.name, '--endpoint', hub.endpoint, '--to', 'cut', '--any-size', '--retries', '0'])
    assert len(hub.contents()) == before + 1


def test_a_home_folder_is_understood(hub, tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', str(tmp_path / 'home'))
    assert main([CELL.name, '--log', '--to', '~/weights']) == 0
    assert (tmp_path / 'home' / 'weights' / 'stem.log').read_bytes() == LOG


@pytest.mark.parametrize('words, complaint', [
    (['small_cel'], "Unknown variant or cell 'small_cel'. Nearest variants: small_variant. Nearest cells: small_cell."),
    (['internvit_6b_224'], 'Nearest variants: internvit_6b_224px'),
    ([CELL.name, '--folder'], '--folder: small_cell is published as a single file, stem.pth'),
    ([VARIANT.name, '--log'], 'no training log was published for the variant small_variant'),
    ([VARIANT.name, '--endpoint', 'mirror'], "endpoint 'mirror' is not an address"),
])
def test_mistakes(hub, capsys, words, complaint):
    assert run(lambda: main(words)) == 2
    assert complaint in capsys.readouterr().err and not hub.seen


@pytest.mark.parametrize('words, complaint', [
    ([], 'NAME is missing; --list shows what can be fetched'),
    (['small_cell', '--retries', '-1'], '--retries -1: must be 0 or more'),
    (['small_cell', '--retries', 'x'], 'invalid int value'),
])
def test_misuse(hub, capsys, words, complaint):
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 2 and complaint in capsys.readouterr().err


def test_the_default_is_that_of_the_package():
    assert build_parser().get_default('retries') == DEFAULT_RETRIES


def test_http_needs_to_be_insisted_on(hub, monkeypatch, capsys):
    monkeypatch.setenv('HF_ENDPOINT', 'http://mirror.invalid')
    assert run(lambda: main([CELL.name])) == 2
    assert 'HF_ENDPOINT=http://mirror.invalid is not encrypted' in capsys.readouterr().err


def test_progress_lines(monkeypatch, capsys):
    clock = iter([100.0, 101.0, 105.0, 106.0, 110.0, 200.0])
    monkeypatch.setattr('time.monotonic', lambda: next(clock))
    printer = Printer()
    for done in (1_000_000, 2_000_000, 6_000_000, 7_000_000, 11_000_000):
        printer.progress('a.pth', done, 21_000_000)
    printer.progress('b.pth', 5, 10)
    assert capsys.readouterr().out.splitlines() == [
        'a.pth: 6.0 MB of 21.0 MB, 1.0 MB/s, 15 s left', 'a.pth: 11.0 MB of 21.0 MB, 1.0 MB/s, 10 s left']


def test_as_a_process(hub, repo_root, tmp_path):
    """The tables of the package itself: the folder of a real variant, whose size the server announces."""
    files = {'model.safetensors': b'', 'config.json': b'{}', 'modeling_intern_vit.py': b''}
    hub.publish('OpenGVLab/InternViT-300M-448px', files)
    hub.announced['model.safetensors'] = 608_000_000
    environment = {**os.environ, 'HF_ENDPOINT': hub.endpoint, 'HF_TOKEN': 'hf_secretsecretsecret'}

    def call(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, str(repo_root / 'tools' / 'fetch.py'), *words], cwd=tmp_path,
                              env=environment, capture_output=True, text=True, timeout=60)

    process = call('internvit_300m_448px', '--folder', '--dry-run')
    assert process.returncode == 0, process.stderr
    for part in (f'commit {hub.heads["OpenGVLab/InternViT-300M-448px"]}', 'model.safetensors: 608.0 MB, to download',
                 'config.json: 2 bytes', '608.0 MB to download', 'dry run: nothing was downloaded'):
        assert part in process.stdout, part
    assert 'modeling_intern_vit' not in process.stdout and 'secret' not in process.stdout + process.stderr
    hub.announced['model.safetensors'] = 300_000_000
    process = call('internvit_300m_448px', '--folder')
    assert process.returncode == 2 and process.stderr.startswith('error: internvit_300m_448px cannot be fetched')
    assert '300.0 MB' in process.stderr and '0.6 GB' in process.stderr and 'Traceback' not in process.stderr
    assert not names_in(tmp_path) and not hub.contents()


def test_the_record_of_a_real_fetch_is_plain_json(hub, tmp_path):
    main([CELL.name])
    record = json.loads((tmp_path / 'pretrained' / 'stem.pth.json').read_text())
    assert set(record) == {'repo', 'file', 'revision', 'commit', 'size', 'sha256', 'licence', 'endpoint', 'fetched'}
