"""The one module that opens connections: a Hugging Face hub, or a mirror of it, seen through huggingface_hub."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import os
import re
import urllib.parse
from collections.abc import Callable, Iterator
from typing import BinaryIO, Literal

from internvl_dense import __version__
from internvl_dense.errors import UserError

DEFAULT_ENDPOINT = 'https://huggingface.co'
LOOPBACK = ('localhost', '127.0.0.1', '::1')
PACKAGES = ('httpx2', 'huggingface_hub')  # huggingface_hub before 2.0 came with another client
MISSING = "downloads need huggingface_hub 2.4 or later: pip install 'internvl-dense[hub]'"
OFFLINE = 'HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE is set, so nothing is downloaded; unset it on a machine with network'
AGAIN = 'A second run resumes.'
SHA256 = re.compile('[0-9a-f]{64}')
# Answers that a later request may not get again: time-out, too many requests, trouble in the server.
PASSING = (408, 429, 500, 502, 503, 504)


class ConnectionCutError(UserError):
    """The server could not be reached or stopped; trying again can help."""


class NotOnServerError(UserError):
    """The server has no such file, revision or repository."""


@dataclasses.dataclass(frozen=True)
class RemoteFile:
    """A file of one commit as the server announces it.

    Args:
        repo: Its repository.
        file: Its name in there.
        commit: The commit.
        size: Bytes; None if the server does not say.
        sha256: Checksum in hex; None if the server states none, as for small text files.
        url: Its address at that commit.
    """

    repo: str
    file: str
    commit: str
    size: int | None
    sha256: str | None
    url: str


def is_offline() -> bool:
    """Whether the user forbids connections, by the variables that huggingface_hub knows."""
    value = os.environ.get('HF_HUB_OFFLINE') or os.environ.get('TRANSFORMERS_OFFLINE') or ''
    return value.upper() in ('1', 'ON', 'YES', 'TRUE')


def choose_endpoint(option: str | None) -> str:
    """The address of the server: the option, $HF_ENDPOINT or huggingface.co, without a slash at the end.

    Raises:
        UserError: Not an address, a password in it, or http where https is needed.
    """
    address = (option or os.environ.get('HF_ENDPOINT') or DEFAULT_ENDPOINT).rstrip('/')
    wrong = f'endpoint {address!r} is not an address; write it as in {DEFAULT_ENDPOINT}'
    try:
        parts = urllib.parse.urlsplit(address)
        port = parts.port
    except ValueError as error:
        raise UserError(f'{wrong} ({error})') from error
    if '@' in parts.netloc:  # it would stand in records and messages
        raise UserError(f'the endpoint at {parts.hostname} holds a user name or password: leave it out, and give a '
                        'token as HF_TOKEN')
    if parts.scheme not in ('http', 'https') or not parts.hostname or port == 0:
        raise UserError(wrong)
    if parts.scheme == 'http' and option is None and parts.hostname not in LOOPBACK:
        raise UserError(f'HF_ENDPOINT={address} is not encrypted: use https, or insist with --endpoint {address}')
    return address


class Hub:
    """A server that speaks the protocol of the Hugging Face hub.

    A token of the user (HF_TOKEN, `hf auth login`) goes to an https server as huggingface_hub sends it, never over
    http. Proxies (HTTPS_PROXY), certificates (SSL_CERT_FILE) and time-outs (HF_HUB_ETAG_TIMEOUT,
    HF_HUB_DOWNLOAD_TIMEOUT, in seconds) are those of huggingface_hub.

    Args:
        endpoint: Address, see `choose_endpoint`.

    Raises:
        UserError: huggingface_hub is not installed, or an older one.
    """

    def __init__(self, endpoint: str) -> None:
        try:
            for name in PACKAGES:
                importlib.import_module(name)
        except ModuleNotFoundError as error:
            raise UserError(f'{error}; {MISSING}') from error
        from huggingface_hub import constants

        # Else the library asks huggingface.co, whatever the endpoint, for a list that fills its user agent.
        constants.HF_HUB_DISABLE_TELEMETRY = True
        parts = urllib.parse.urlsplit(endpoint)
        self.endpoint = endpoint
        self.host = f'{parts.hostname}:{parts.port}' if parts.port else str(parts.hostname)
        self._encrypted = parts.scheme == 'https'
        self._token: Literal[False] | None = None if self._encrypted else False

    def look_up(self, repo: str, file: str, revision: str) -> RemoteFile:
        """What the server announces of a file; no content is asked for.

        Raises:
            NotOnServerError: It has no such file or revision.
            UserError: It cannot be reached, refuses, or is no such server.
        """
        from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url

        what = f'{file} of {repo} at revision {revision}'
        with self._explained(what):
            answer = get_hf_file_metadata(
                hf_hub_url(repo, file, revision=revision, endpoint=self.endpoint), token=self._token,
                timeout=constants.HF_HUB_ETAG_TIMEOUT, endpoint=self.endpoint, library_name='internvl-dense',
                library_version=__version__)
        if answer.commit_hash is None:
            raise self._not_a_hub(f'it does not say which commit {what} is')
        sha256 = answer.etag if answer.etag and SHA256.fullmatch(answer.etag) else None
        url = hf_hub_url(repo, file, revision=answer.commit_hash, endpoint=self.endpoint)
        return RemoteFile(repo, file, answer.commit_hash, answer.size, sha256, url)

    def list_files(self, repo: str, revision: str) -> tuple[str, list[str]]:
        """The commit that `revision` stands for, and all files of the repository.

        Raises:
            NotOnServerError: No such repository or revision.
            UserError: The server cannot be reached, refuses, or is no such server.
        """
        from huggingface_hub import HfApi, constants

        api = HfApi(self.endpoint, token=self._token, library_name='internvl-dense', library_version=__version__)
        try:
            with self._explained(f'{repo} at revision {revision}'):
                info = api.model_info(repo, revision=revision, timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT)
        except (LookupError, TypeError, AttributeError) as error:  # JSON of another kind
            raise self._not_a_hub(repr(error)) from error
        if info.sha is None or info.siblings is None:
            raise self._not_a_hub(f'no commit or files of {repo}')
        return info.sha, [sibling.rfilename for sibling in info.siblings]

    def append(self, remote: RemoteFile, file: BinaryIO, progress: Callable[[int], None]) -> None:
        """Asks for the bytes that `file` lacks and writes them at its end.

        hf_hub_download of huggingface_hub 2.4 deletes its partial file when the connection breaks, so it cannot resume.

        Args:
            remote: What to download.
            file: Open for reading and writing; what it holds is the beginning of the content.
            progress: Told the number of bytes in `file` after each piece.

        Raises:
            ConnectionCutError: The connection broke; what came is in `file`.
            UserError: The server refuses or answers something else.
            OSError: `file` cannot be written.
        """
        from huggingface_hub import constants, get_session, hf_raise_for_status
        from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]  # exported lazily

        have = file.seek(0, os.SEEK_END)
        headers = build_hf_headers(
            token=self._token, library_name='internvl-dense', library_version=__version__,
            headers={'Accept-Encoding': 'identity', **({'Range': f'bytes={have}-'} if have else {})})
        timeout = constants.HF_HUB_DOWNLOAD_TIMEOUT
        with self._explained(remote.file):
            with get_session().stream('GET', remote.url, headers=headers, timeout=timeout) as answer:
                if answer.status_code == 416:  # no such range
                    raise UserError(f'{self.host} has no bytes of {remote.file} after the first {have}, though it '
                                    f'announces {remote.size}: delete {file.name} and run again, or try another '
                                    '--endpoint')
                hf_raise_for_status(answer)
                self._check_answer(remote, answer.url.scheme, answer.headers.get('Content-Range'), have)
                if answer.status_code != 206:  # the server sends everything, asked for a range or not
                    file.truncate(file.seek(0))
                for piece in answer.iter_bytes():
                    file.write(piece)
                    progress(file.tell())
                    if remote.size is not None and file.tell() > remote.size:
                        return

    def _check_answer(self, remote: RemoteFile, scheme: str, content_range: str | None, have: int) -> None:
        if self._encrypted and scheme != 'https':
            raise UserError(f'{self.host} sends {remote.file} from an address without encryption; nothing was read')
        if content_range is not None and not content_range.startswith(f'bytes {have}-'):
            raise UserError(f'{self.host} was asked for {remote.file} from byte {have} and answers {content_range!r}')

    @contextlib.contextmanager
    def _explained(self, what: str) -> Iterator[None]:
        """Turns what the library raises into one message: host, cause, what to check."""
        import httpx2
        from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

        try:
            yield
        except OfflineModeIsEnabled as error:
            raise UserError(OFFLINE) from error
        except HfHubHTTPError as error:
            raise self._refusal(what, error.response.status_code, error.server_message) from error
        except httpx2.HTTPError as error:
            raise self._unreachable(what, error, isinstance(error, httpx2.TimeoutException)) from error
        except UserError:
            raise
        except ValueError as error:  # a body that is not JSON, a name that no repository can have
            raise self._not_a_hub(repr(error)) from error

    def _refusal(self, what: str, status: int, said: str | None) -> UserError:
        says = f' and says: {said.splitlines()[0][:200]}' if said else ''
        if status in (401, 403):
            return UserError(
                f'{self.host} refuses {what} (status {status}){says}. The published files need no login on '
                f'{DEFAULT_ENDPOINT}; a mirror may want a token (HF_TOKEN), a gated page that its terms are accepted. '
                f'{AGAIN}')
        if status == 404:
            return NotOnServerError(
                f'{self.host} has no {what} (status 404){says}. Check --revision and the endpoint; a commit in a '
                f'record that the publisher has removed is replaced with --revision main. {AGAIN}')
        kind = ConnectionCutError if status in PASSING else UserError
        return kind(f'{self.host} cannot serve {what} (status {status}){says}. Wait, or check HF_ENDPOINT or '
                    f'--endpoint for a mirror. {AGAIN}')

    def _unreachable(self, what: str, error: Exception, slow: bool) -> ConnectionCutError:
        proxy = 'set' if os.environ.get('HTTPS_PROXY') or os.environ.get('https_proxy') else 'not set'
        cause = 'did not answer in time' if slow else 'could not be reached, or the connection broke'
        return ConnectionCutError(
            f'{self.host} {cause} ({type(error).__name__}: {error}) while asked for {what}. Check that this machine '
            f'has network (compute nodes often have none), HTTPS_PROXY ({proxy}), SSL_CERT_FILE behind a firewall '
            f'with its own certificate, and HF_ENDPOINT or --endpoint for a mirror. {AGAIN}')

    def _not_a_hub(self, cause: str) -> UserError:
        return UserError(f'{self.host} does not answer as a Hugging Face hub or a mirror of it ({cause}); check '
                         'HF_ENDPOINT, --endpoint and HTTPS_PROXY')
