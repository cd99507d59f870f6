"""A file server on this machine that speaks as much of the Hugging Face hub as a download needs, and fails on demand."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import http.server
import json
import threading
import urllib.parse
from collections.abc import Iterator

PROXIES = ('HTTP_PROXY', 'HTTPS_PROXY', 'ALL_PROXY', 'http_proxy', 'https_proxy', 'all_proxy')
BLOCK = 16384  # bytes sent at a time


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
        statuses: Name -> the status with which requests for it are answered.
        no_ranges: Answer every request with the whole file.
        redirect_content: Send contents from another address (host name), as a content network does.
        no_commit: Leave out the header that states the commit.
    """

    commits: dict[tuple[str, str], dict[str, bytes]] = dataclasses.field(default_factory=dict)
    heads: dict[str, str] = dataclasses.field(default_factory=dict)
    plain: set[str] = dataclasses.field(default_factory=set)
    announced: dict[str, int] = dataclasses.field(default_factory=dict)
    sent: dict[str, bytes] = dataclasses.field(default_factory=dict)
    cut_after: int | None = None
    statuses: dict[str, int] = dataclasses.field(default_factory=dict)
    no_ranges: bool = False
    redirect_content: bool = False
    no_commit: bool = False
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
            headers |= {'X-Linked-Size': str(size), 'X-Linked-Etag': f'"{hashlib.sha256(files[name]).hexdigest()}"'}
        host = self.headers.get('Host', '')
        if self.hub.redirect_content and name not in self.hub.plain and host.startswith('127.0.0.1'):
            headers['Location'] = f'http://localhost:{self.hub.port}{self.path}'
            return self.reply(302, b'', headers)
        return self.send(self.hub.sent.get(name, files[name]), headers, size)

    def send(self, content: bytes, headers: dict[str, str], size: int) -> None:
        if self.command == 'HEAD':
            return self.reply(200, b'', headers | {'Content-Length': str(size)})
        asked = self.headers.get('Range')
        if asked is None or self.hub.no_ranges:
            return self.reply(200, content, headers)
        start = int(asked.removeprefix('bytes=').removesuffix('-'))
        span = f'bytes {start}-{len(content) - 1}/{len(content)}'
        return self.reply(206, content[start:], headers | {'Content-Range': span})

    def refuse(self, status: int, message: str, code: str = '') -> None:
        headers = {'X-Error-Message': message} | ({'X-Error-Code': code} if code else {})
        self.reply(status, b'', headers)

    def reply(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in ({'Content-Length': str(len(body))} | headers).items():
            self.send_header(key, value)
        self.end_headers()
        limit = len(body) if self.hub.cut_after is None else self.hub.cut_after
        for start in range(0, min(len(body), limit), BLOCK):
            self.wfile.write(body[start:min(start + BLOCK, limit)])
        if limit < len(body):
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
        server.shutdown()
        server.server_close()
        thread.join()
