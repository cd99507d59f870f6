"""Training and testing never open a network connection."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest

from tests import tiny_runs

# Loaded by every interpreter that finds it first, worker processes included. Sockets of this machine's own kind
# (AF_UNIX) stay: loaders pass files through them.
BLOCK = """
    import os
    import socket

    def refuse(where):
        with open(os.environ['ASKED_FOR'], 'a') as file:
            file.write(f'{where}\\n')
        raise OSError(f'the network is blocked, asked for {where}')

    class Socket(socket.socket):
        def connect(self, address):
            return super().connect(address) if self.family == socket.AF_UNIX else refuse(address)

        def connect_ex(self, address):
            return super().connect_ex(address) if self.family == socket.AF_UNIX else refuse(address)

        def sendto(self, data, *rest):
            return super().sendto(data, *rest) if self.family == socket.AF_UNIX else refuse(rest[-1])

    socket.socket = Socket
    socket.getaddrinfo = socket.gethostbyname = lambda host, *rest, **options: refuse(host)
"""


@pytest.fixture
def blocked(tmp_path):
    """Runs a command in a new interpreter whose sockets refuse; returns the process and what it asked for."""
    (tmp_path / 'block').mkdir()
    (tmp_path / 'block' / 'sitecustomize.py').write_text(textwrap.dedent(BLOCK))

    def call(*words):
        asked = tmp_path / 'asked'
        asked.write_text('')
        environment = {**os.environ, 'OMP_NUM_THREADS': '1', 'ASKED_FOR': str(asked),
                       'PYTHONPATH': os.pathsep.join([str(tmp_path / 'block'), str(tiny_runs.ROOT)])}
        command = [sys.executable, *map(str, words)]
        process = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
        return process, asked.read_text()

    return call


def test_the_block_blocks(blocked):
    for code in ("import socket; socket.create_connection(('127.0.0.1', 9))",
                 "import socket; socket.socket().connect(('127.0.0.1', 9))",
                 "import urllib.request; urllib.request.urlopen('http://127.0.0.1:9')"):
        process, asked = blocked('-c', code)
        assert process.returncode != 0 and 'the network is blocked' in process.stderr
        assert '127.0.0.1' in asked


def test_train_and_test_of_the_demo(blocked, data, tmp_path):
    tools = tiny_runs.ROOT / 'tools'
    workers = {'train_dataloader.num_workers': 1}
    words = [tiny_runs.CONFIG, '--work-dir', tmp_path / 'run', *tiny_runs.options(data, workers)]
    trained, asked = blocked(tools / 'train.py', *words)
    assert (trained.returncode, asked) == (0, ''), trained.stderr
    tested, asked = blocked(tools / 'test.py', words[0], tmp_path / 'run' / 'iter_4.pth', *words[1:])
    assert (tested.returncode, asked) == (0, ''), tested.stderr
    assert (tmp_path / 'run' / 'metrics.json').exists()


def test_a_recipe_without_its_weights_stops_without_asking_the_network(blocked, tmp_path):
    cell = 'ade20k/linear_probing_internvit_6b_224px_ade20k'
    process, asked = blocked(tiny_runs.ROOT / 'tools' / 'train.py', cell)
    assert (process.returncode, asked) == (2, '')
    for part in ('intern_vit_6b_224px.pth', '12 GB', 'licence MIT', 'internvl-dense fetch internvit_6b_224px',
                 '$INTERNVL_DENSE_WEIGHTS', str(tmp_path / 'pretrained')):
        assert part in process.stderr, part
    assert not (tmp_path / 'work_dirs').exists()
