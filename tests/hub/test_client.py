"""What is asked of a server, and what each of its refusals says."""

from __future__ import annotations

import io
import json
import socket
import subprocess
import sys
import time

import pytest
from huggingface_hub import constants

from internvl_dense.errors import UserError
from internvl_dense.hub.client import ConnectionCutError, Hub, NotOnServerError, RemoteFile, choose_endpoint, is_offline
from tests.fetches import CONTENT, FILE, FOLDER, REPO, SHA256, SOURCE, Told, get, names_in
from tests.hub_server import HubServer

TOKEN = 'hf_secretsecretsecret'


@pytest.mark.parametrize('option, variable, chosen', [
    (None, None, 'https://huggingface.co'),
    (None, 'https://mirror.example/hub/', 'https://mirror.example/hub'),
    (None, 'http://localhost:8080', 'http://localhost:8080'),
    (None, 'http://[::1]:8080', 'http://[::1]:8080'),
    ('http://mirror.example', 'https://other.example', 'http://mirror.example'),
])
def test_endpoints(monkeypatch, option, variable, chosen):
    monkeypatch.delenv('HF_ENDPOINT', raising=False)
    if variable:
        monkeypatch.setenv('HF_ENDPOINT', variable)
    assert choose_endpoint(option) == chosen


@pytest.mark.parametrize('address, complaint', [
    ('http://mirror.example', 'not encrypted: use https, or insist with --endpoint http://mirror.example'),
    ('http://localhost.example', 'not encrypted'),
    ('mirror.example', 'is not an address; write it as in https://huggingface.co'),
    ('ftp://mirror.example', 'is not an address'),
    ('https://mirror.example:port', 'is not an address'),
    ('https://[mirror', 'is not an address'),
    ('https://', 'is not an address'),
])
def test_refused_endpoints(monkeypatch, address, complaint):
    monkeypatch.setenv('HF_ENDPOINT', address)
    with pytest.raises(UserError, match=complaint):
        choose_endpoint(None)


@pytest.mark.parametrize('scheme', ['http', 'https', 'ftp'])
def test_a_password_in_the_endpoint_is_not_repeated(scheme):
    with pytest.raises(UserError, match=r'mirror\.example holds a user name or password') as caught:
        choose_endpoint(f'{scheme}://me:{TOKEN}@mirror.example')
    assert TOKEN not in str(caught.value)


@pytest.mark.parametrize('value, offline', [('1', True), ('yes', True), ('ON', True), ('0', False), ('', False)])
def test_offline(monkeypatch, value, offline):
    monkeypatch.delenv('TRANSFORMERS_OFFLINE', raising=False)
    monkeypatch.setenv('HF_HUB_OFFLINE', value)
    assert is_offline() is offline


def test_offline_as_the_library_was_told_at_its_import(hub, monkeypatch):
    monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', True)
    with pytest.raises(UserError, match='so nothing is downloaded; unset it'):
        Hub(hub.endpoint).look_up(REPO, FILE, 'main')


@pytest.mark.parametrize('name', ['huggingface_hub', 'httpx2'])
def test_without_the_package(tmp_path, monkeypatch, name):
    for loaded in [module for module in sys.modules if module.split('.')[0] == 'huggingface_hub']:
        monkeypatch.delitem(sys.modules, loaded)
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UserError, match=rf"{name}.*need huggingface_hub .*: pip install 'internvl-dense\[hub\]'"):
        get(HubServer(), tmp_path)


def test_look_up(hub):
    commit = hub.heads[REPO]
    remote = Hub(hub.endpoint).look_up(REPO, FILE, 'main')
    assert remote == RemoteFile(REPO, FILE, commit, len(CONTENT), SHA256,
                                f'{hub.endpoint}/{REPO}/resolve/{commit}/{FILE}')
    assert [seen.method for seen in hub.seen] == ['HEAD']
    hub.plain.add(FILE)
    assert Hub(hub.endpoint).look_up(REPO, FILE, commit).sha256 is None


def test_a_size_that_is_not_announced(hub, tmp_path):
    hub.no_size = True
    with pytest.raises(UserError, match=f'{FILE}: the server announces no size'):
        get(hub, tmp_path)
    assert not hub.contents()


def test_no_other_host_is_asked(hub, tmp_path, monkeypatch):
    """The library would describe its surroundings to the hub, and asks it how."""
    monkeypatch.setattr(constants, 'HF_HUB_DISABLE_TELEMETRY', False)
    asked: list[str] = []
    resolve = socket.getaddrinfo

    def record(host, *rest, **options):
        asked.append(host)
        return resolve(host, *rest, **options)

    monkeypatch.setattr(socket, 'getaddrinfo', record)
    get(hub, tmp_path)
    assert set(asked) == {'127.0.0.1'}
    assert constants.HF_HUB_DISABLE_TELEMETRY


def test_a_token_does_not_travel_over_http_nor_into_messages(hub, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv('HF_TOKEN', TOKEN)
    told = Told()
    get(hub, tmp_path / 'good', told=told)
    hub.statuses[FILE] = 401
    with pytest.raises(UserError, match='HF_TOKEN') as caught:
        get(hub, tmp_path / 'bad', told=told)
    assert len(hub.seen) == 3 and {seen.authorization for seen in hub.seen} == {None}
    kept = ''.join(path.read_text() for path in tmp_path.rglob('*.json'))
    assert TOKEN not in ''.join([told.text, str(caught.value), kept, *capfd.readouterr()])


@pytest.mark.parametrize('status, parts', [
    (401, ('refuses', 'HF_TOKEN', 'its terms')),
    (403, ('refuses', 'HF_TOKEN', 'its terms')),
    (404, ('has no', '--revision', 'endpoint')),
    (410, ('cannot serve', '--endpoint')),
    (500, ('cannot serve', 'Wait', '--endpoint')),
    (503, ('cannot serve', 'Wait', '--endpoint')),
])
def test_refusals(hub, tmp_path, status, parts):
    hub.statuses[FILE] = status
    with pytest.raises(UserError) as caught:
        get(hub, tmp_path)
    text = str(caught.value)
    for part in (f'127.0.0.1:{hub.port}', FILE, REPO, f'status {status}', 'as the test wants it',
                 'A second run resumes', *parts):
        assert part in text, part
    assert not names_in(tmp_path) and '\n' not in text
    assert isinstance(caught.value, NotOnServerError) is (status == 404)


def test_unknown_revisions_and_repositories(hub, tmp_path):
    for options in ({'revision': 'elsewhere'}, {'source': FOLDER, 'revision': 'v9'}):
        with pytest.raises(NotOnServerError, match='status 404.*--revision'):
            get(hub, tmp_path, **options)
    with pytest.raises(UserError, match='does not answer as a Hugging Face hub'):
        Hub(hub.endpoint).look_up('no/such/repository/name', '', 'main')


def test_connection_refused(hub, tmp_path, monkeypatch):
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    monkeypatch.setenv('HTTPS_PROXY', f'http://127.0.0.1:{port}')
    with pytest.raises(ConnectionCutError) as caught:
        get(HubServer(port=port), tmp_path)
    for part in (f'127.0.0.1:{port}', 'could not be reached', FILE, 'compute nodes', 'HTTPS_PROXY (set)',
                 'SSL_CERT_FILE', 'HF_ENDPOINT or --endpoint', 'A second run resumes'):
        assert part in str(caught.value), part


def test_a_server_that_says_nothing(hub, tmp_path, monkeypatch):
    hub.silent = True
    monkeypatch.setattr(constants, 'HF_HUB_ETAG_TIMEOUT', 0.2)
    monkeypatch.setattr(constants, 'HF_HUB_DOWNLOAD_TIMEOUT', 0.2)
    begin = time.monotonic()
    for source in (SOURCE, FOLDER):
        with pytest.raises(ConnectionCutError, match=rf'127\.0\.0\.1:{hub.port} did not answer in time.*run resumes'):
            get(hub, tmp_path, source)
    assert time.monotonic() - begin < 5  # the library's own limits are 10 s


def test_a_server_that_stops_midway(hub, tmp_path, monkeypatch):
    hub.hold_after = 60_000
    monkeypatch.setattr(constants, 'HF_HUB_DOWNLOAD_TIMEOUT', 0.2)
    with pytest.raises(ConnectionCutError, match=f'did not answer in time.* while asked for {FILE}'):
        get(hub, tmp_path)
    assert (tmp_path / f'{FILE}.part').read_bytes() == CONTENT[:60_000]


def test_something_else_that_answers(hub, tmp_path):
    hub.no_commit = hub.no_json = True
    with pytest.raises(UserError, match=f'does not say which commit {FILE} of {REPO}'):
        get(hub, tmp_path)
    with pytest.raises(UserError, match='does not answer as a Hugging Face hub or a mirror of it .*HTTPS_PROXY'):
        get(hub, tmp_path, FOLDER)


@pytest.mark.parametrize('body', ['[]', '{}', '{"id": "a/b", "siblings": [3]}', '{"id": "a/b", "sha": "1"}', '3'])
def test_json_of_another_kind(hub, monkeypatch, body):
    monkeypatch.setattr(json, 'dumps', lambda *args, **options: body)
    with pytest.raises(UserError, match='does not answer as a Hugging Face hub'):
        Hub(hub.endpoint).list_files(REPO, 'main')


def test_append_asks_for_what_is_missing(hub):
    client = Hub(hub.endpoint)
    remote = client.look_up(REPO, FILE, 'main')
    file, seen = io.BytesIO(CONTENT[:1000]), []
    client.append(remote, file, seen.append)
    assert file.getvalue() == CONTENT and seen[-1] == len(CONTENT) and seen == sorted(seen)
    assert hub.ranges() == ['bytes=1000-']


def test_an_answer_with_another_range(hub):
    hub.shift = 1
    client = Hub(hub.endpoint)
    remote = client.look_up(REPO, FILE, 'main')
    file = io.BytesIO(CONTENT[:1000])
    with pytest.raises(UserError, match="from byte 1000 and answers 'bytes 1001-"):
        client.append(remote, file, print)
    assert file.getvalue() == CONTENT[:1000]


def test_an_encrypted_server_may_not_send_from_one_that_is_not():
    """No server here has a certificate, so the answer is made up."""
    remote = RemoteFile(REPO, FILE, 'c', 1, None, 'https://mirror.example/file')
    with pytest.raises(UserError, match=r'mirror\.example sends weights\.pth from an address without encryption'):
        Hub('https://mirror.example')._check_answer(remote, 'http', None, 0)
    Hub('https://mirror.example')._check_answer(remote, 'https', None, 0)
    Hub('http://mirror.example')._check_answer(remote, 'http', None, 0)


def test_the_library_is_loaded_by_a_download_alone(repo_root):
    code = ('import sys, internvl_dense.hub.fetching, internvl_dense.commands.fetch as command; command.listing();'
            'print([name for name in ("huggingface_hub", "httpx2") if name in sys.modules])')
    process = subprocess.run([sys.executable, '-c', code], cwd=repo_root, capture_output=True, text=True, timeout=60)
    assert process.stdout == '[]\n', process.stderr
