"""A server on this machine that speaks as much of the Hugging Face hub as a download needs, and fails on demand."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import http.server
import json
import threading
import urllib.parse
from collections.abc import Iterator

import huggingface_hub
import pytest

PROXIES = ('HTTP_PROXY', 'HTTPS_PROXY', 'ALL_PROXY', 'http_proxy', 'https_proxy', 'all_proxy')
SWITCHES = ('HF_HUB_OFFLINE', 'TRANSFORMERS_OFFLINE', 'HF_TOKEN', 'HF_ENDPOINT')
BLOCK = 16384  # bytes sent at a time
LONGEST_HOLD_S = 10.0


@dataclasses.dataclass
class Seen:
    """A request as it came in."""

    method: str
    path: str
    range: str | None
    authorization: str | None


@dataclasses.dataclass
class HubServer:
    """Repositories, what is wrong with the server, and the requests that it saw.

    Args:
        commits: (repository, commit) -> name -> content.
        heads: Repository -> the commit that 'main' stands for.
        plain: Names that are no LFS files: no sha256, size as Content-Length.
        announced: Name -> the size to announce instead of the true one.
        sent: Name -> the bytes to send instead of those whose checksum is announced.
        cut_after: Close the connection after so many bytes of content; None to send all.
        hold_after: Wait for `go_on` after so many bytes of content; None to send all at once.
        silent: Wait for `go_on` before any answer.
        failures: Statuses with which the next requests for contents are answered.
        statuses: Name -> the status with which requests for it are answered.
        no_ranges: Answer every request with the whole file.
        shift: Answer a range that begins so many bytes later than what was asked for.
        redirect_content: Send contents from another address (host name), as a content network does.
        no_commit: Leave out the header that states the commit.
        no_size: Announce no size.
        no_json: Answer questions about repositories with a web page.
    """

    commits: dict[tuple[str, str], dict[str, bytes]] = dataclasses.field(default_factory=dict)
    heads: dict[str, str] = dataclasses.field(default_factory=dict)
    plain: set[str] = dataclasses.field(default_factory=set)
    announced: dict[str, int] = dataclasses.field(default_factory=dict)
    sent: dict[str, bytes] = dataclasses.field(default_factory=dict)
    cut_after: int | None = None
    hold_after: int | None = None
    silent: bool = False
    failures: list[int] = dataclasses.field(default_factory=list)
    go_on: threading.Event = dataclasses.field(default_factory=threading.Event)
    statuses: dict[str, int] = dataclasses.field(default_factory=dict)
    no_ranges: bool = False
    shift: int = 0
    redirect_content: bool = False
    no_commit: bool = False
    no_size: bool = False
    no_json: bool = False
    seen: list[Seen] = dataclasses.field(default_factory=list)
    port: int = 0

    @property
    def endpoint(self) -> str:
        return f'http://127.0.0.1:{self.port}'

    def publish(self, repo: str, files: dict[str, bytes]) -> str:
        """Adds a commit, to which 'main' moves; returns its hash."""
        commit = hashlib.sha1(f'{repo} {len(self.commits)}'.encode()).hexdigest()
        self.commits[repo, commit] = files
        self.heads[repo] = commit
        return commit

    def contents(self) -> list[Seen]:
        """The requests for contents of files."""
        return [seen for seen in self.seen if seen.method == 'GET' and not seen.path.startswith('/api/')]

    def ranges(self) -> list[str | None]:
        """The ranges that were asked for, one for each request for content; None is the whole file."""
        return [seen.range for seen in self.contents()]


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    hub: HubServer

    def log_message(self, *args: object) -> None:
        """Says nothing."""

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def answer(self) -> None:
        path = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path)
        self.hub.seen.append(Seen(self.command, path, self.headers.get('Range'), self.headers.get('Authorization')))
        if self.hub.silent:
            self.hub.go_on.wait(LONGEST_HOLD_S)
        words = path.strip('/').split('/')
        if words[:2] == ['api', 'models'] and words[4:5] == ['revision']:
            self.describe('/'.join(words[2:4]), words[5])
        elif words[2:3] == ['resolve']:
            self.resolve('/'.join(words[:2]), words[3], '/'.join(words[4:]))
        else:
            self.refuse(404, 'no such address')

    def find(self, repo: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        commit = self.hub.heads.get(repo, '') if revision == 'main' else revision
        files = self.hub.commits.get((repo, commit))
        return None if files is None else (commit, files)

    def describe(self, repo: str, revision: str) -> None:
        found = self.find(repo, revision)
        if self.hub.no_json:
            return self.reply(200, b'<html>log in first</html>', {'Content-Type': 'text/html'})
        if found is None:
            return self.refuse(404, 'Invalid rev id', 'RevisionNotFound')
        body = json.dumps({'id': repo, 'sha': found[0], 'siblings': [{'rfilename': name} for name in found[1]]})
        return self.reply(200, body.encode(), {'Content-Type': 'application/json'})

    def resolve(self, repo: str, revision: str, name: str) -> None:
        found = self.find(repo, revision)
        if name in self.hub.statuses:
            return self.refuse(self.hub.statuses[name], 'as the test wants it')
        if found is None or name not in found[1]:
            return self.refuse(404, 'not here', 'RevisionNotFound' if found is None else 'EntryNotFound')
        commit, files = found
        headers = {'Accept-Ranges': 'bytes'} | ({} if self.hub.no_commit else {'X-Repo-Commit': commit})
        size = self.hub.announced.get(name, len(files[name]))
        if name in self.hub.plain:
            headers['ETag'] = f'"{hashlib.sha1(files[name]).hexdigest()}"'
        else:
            headers['X-Linked-Etag'] = f'"{hashlib.sha256(files[name]).hexdigest()}"'
            headers |= {} if self.hub.no_size else {'X-Linked-Size': str(size)}
        host = self.headers.get('Host', '')
        if self.hub.redirect_content and name not in self.hub.plain and host.startswith('127.0.0.1'):
            headers['Location'] = f'http://localhost:{self.hub.port}{self.path}'
            return self.reply(302, b'', headers)
        return self.send(self.hub.sent.get(name, files[name]), headers, size)

    def send(self, content: bytes, headers: dict[str, str], size: int) -> None:
        if self.command == 'HEAD':
            return self.reply(200, b'', headers | {'Content-Length': '' if self.hub.no_size else str(size)})
        if self.hub.failures:
            return self.refuse(self.hub.failures.pop(0), 'as the test wants it')
        asked = self.headers.get('Range')
        if asked is None or self.hub.no_ranges:
            return self.reply(200, content, headers, self.hub.cut_after, self.hub.hold_after)
        start = int(asked.removeprefix('bytes=').removesuffix('-')) + self.hub.shift
        if start >= len(content):
            return self.refuse(416, 'beyond the end')
        span = {'Content-Range': f'bytes {start}-{len(content) - 1}/{len(content)}'}
        return self.reply(206, content[start:], headers | span, self.hub.cut_after, self.hub.hold_after)

    def refuse(self, status: int, message: str, code: str = '') -> None:
        headers = {'X-Error-Message': message} | ({'X-Error-Code': code} if code else {})
        self.reply(status, b'', headers)

    def reply(self, status: int, body: bytes, headers: dict[str, str],
              cut: int | None = None, hold: int | None = None) -> None:
        self.send_response(status)
        for key, value in ({'Content-Length': str(len(body))} | headers).items():
            if value:
                self.send_header(key, value)
        self.end_headers()
        sent = body[:cut]
        if hold is not None and hold < len(sent):
            self.wfile.write(sent[:hold])
            self.hub.go_on.wait(LONGEST_HOLD_S)
            sent = sent[hold:]
        with contextlib.suppress(ConnectionError):  # the other side may have gone away meanwhile
            for start in range(0, len(sent), BLOCK):
                self.wfile.write(sent[start:start + BLOCK])
        if cut is not None and cut < len(body):
            self.close_connection = True


@contextlib.contextmanager
def running() -> Iterator[HubServer]:
    """An empty server on a free port of 127.0.0.1."""
    hub = HubServer()
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), type('Bound', (Handler,), {'hub': hub}))
    server.daemon_threads = True
    server.block_on_close = False
    hub.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={'poll_interval': 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.go_on.set()
        server.shutdown()
        server.server_close()
        thread.join()


@contextlib.contextmanager
def alone(patch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A server, with HF_ENDPOINT pointing at it and nothing else of the user's environment that steers downloads."""
    for name in (*PROXIES, *SWITCHES):
        patch.delenv(name, raising=False)
    huggingface_hub.close_session()  # it keeps the proxies and the connections of its first use
    with running() as hub:
        patch.setenv('HF_ENDPOINT', hub.endpoint)
        yield hub
    huggingface_hub.close_session()
