"""Download published weights, once, on a machine with network; nothing else in the project opens a connection.

NAME is a variant (its single file; --folder takes the Hugging Face folder, in safetensors) or a published segmentor, a
cell (its checkpoint and its training log; --log takes the log alone). --list shows all of them.

A second run goes on where the first one stopped, with the same commit. Size and sha256 are checked before a file gets
its name; what was fetched stands in a .json beside it. HF_ENDPOINT, HTTPS_PROXY, HF_TOKEN and HF_HUB_OFFLINE hold as in
every program of the Hugging Face hub.
"""

from __future__ import annotations

import argparse
import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from internvl_dense.hub.bundles import Bundle
    from internvl_dense.hub.sources import Source

COLUMNS = ('name', 'file', 'size', 'licence', 'mIoU', 'sha256')


def build_parser() -> argparse.ArgumentParser:
    """Arguments of the command."""
    parser = argparse.ArgumentParser(
        prog='fetch', description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('name', metavar='NAME', nargs='?', help='a variant or a cell')
    parser.add_argument('--to', metavar='DIR', type=Path, help='where to put it (default: ./pretrained)')
    parser.add_argument('--list', action='store_true', help='show what can be fetched, and stop')
    parser.add_argument('--dry-run', action='store_true', help='say what would be downloaded, and stop')
    parser.add_argument('--folder', action='store_true', help='the Hugging Face folder of a variant')
    parser.add_argument('--log', action='store_true', help='the training log of a cell, without its checkpoint')
    parser.add_argument('--revision', help='branch, tag or commit (default: the commit already begun, else main)')
    parser.add_argument('--endpoint', metavar='URL', help='a mirror (default: HF_ENDPOINT, else huggingface.co)')
    parser.add_argument('--any-size', action='store_true', help='accept a size unlike that of the table')
    parser.add_argument('--retries', type=int, default=5, metavar='N',
                        help='attempts in a row after a broken connection (default: 5)')
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code.

    Raises:
        UserError: An unknown name, options that do not go together, or a fetch that is refused or cut short.
    """
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.list:
        print(listing())
        return 0
    if args.name is None:
        parser.error('NAME is missing; --list shows what can be fetched')
    if args.retries < 0:
        parser.error(f'--retries {args.retries}: must be 0 or more')
    from internvl_dense.backbones.locate import DEFAULT_FOLDER
    from internvl_dense.hub.client import choose_endpoint
    from internvl_dense.hub.fetching import Options, fetch
    from internvl_dense.hub.sources import find_source

    source = find_source(args.name, folder=args.folder, log=args.log)
    options = Options(
        folder=(args.to or DEFAULT_FOLDER).expanduser(), endpoint=choose_endpoint(args.endpoint),
        revision=args.revision, retries=args.retries, any_size=args.any_size, dry_run=args.dry_run)
    bundles = fetch(source, options, Printer())
    if args.dry_run:
        print('dry run: nothing was downloaded')
    else:
        print('\n'.join(_outcome(source, bundles)))
    return 0


def listing() -> str:
    """The table of what can be fetched."""
    from dataclasses import astuple

    from internvl_dense.hub.sources import rows

    lines = [COLUMNS, *(astuple(row) for row in rows())]
    widths = [max(len(line[i]) for line in lines) for i in range(len(COLUMNS))]
    return '\n'.join(
        '  '.join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines)


class Printer:
    """Prints what happens; of a long download, a line now and then."""

    def __init__(self) -> None:
        self._file = ''
        self._start = self._printed = 0.0
        self._first = 0

    def say(self, text: str) -> None:
        """A line of text."""
        print(text, flush=True)

    def progress(self, file: str, done: int, total: int) -> None:
        """Bytes so far, speed and time left."""
        from internvl_dense.commands._progress import INTERVAL_S, duration
        from internvl_dense.hub.checks import size_text

        now = time.monotonic()
        if file != self._file:
            self._file, self._start, self._printed, self._first = file, now, now, done
        if now - self._printed < INTERVAL_S:
            return
        self._printed = now
        rate = max(done - self._first, 0) / max(now - self._start, 1e-9)
        left = f'{duration((total - done) / rate)} left' if rate else 'stalled'
        print(f'{file}: {size_text(done)} of {size_text(total)}, {size_text(rate)}/s, {left}', flush=True)


def _outcome(source: Source, bundles: Sequence[Bundle]) -> list[str]:
    """Where everything is, the checksum that was seen, and what to do next."""
    lines = []
    for bundle in bundles:
        record = bundle.record()
        if record is None or not bundle.place.exists():
            continue  # an optional file that the server lacks, which has been said
        lines.append(f'{bundle.place.absolute()}: complete, record in {bundle.record_path.name}')
        lines += [f'  sha256 {entry.sha256}  {entry.file}' for entry in record.files]
    return [*lines, *_next(source, bundles[0])]


def _next(source: Source, bundle: Bundle) -> list[str]:
    if source.is_cell and bundle.place.suffix == '.log':
        return [f'next: internvl-dense compare RUN {shlex.quote(f"published:{bundle.place}")}']
    if source.is_cell:
        seen = [] if source.sha256 else [
            f'this sha256 of {bundle.place.name} was unknown so far: it can be written in internvl_dense/zoo.py, row '
            f'{source.name}']
        where = shlex.quote(str(bundle.place))
        return [*seen, f'next: internvl-dense reproduce {source.name} --weights {where} --data-root DIR']
    from internvl_dense.backbones.locate import ENVIRONMENT, places

    folder = bundle.place.parent.resolve()
    if folder in [place.resolve() for place in places()]:
        return [f"next: recipes find it in {folder}, as weights='published'"]
    return [f"next: export {ENVIRONMENT}={shlex.quote(str(folder))}, and recipes find it as weights='published'"]
