"""Training logs of mmcv 1.x, in their text and their JSON form: loss, learning rate and scores by iteration."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

from internvl_dense.errors import UserError
from internvl_dense.evaluation.curves import Curve

# What mmcv's TextLoggerHook writes for a run that counts iterations. Anything may stand before it on the line, also the
# start of a line that broke off, so the last match counts.
TRAINED = re.compile(r'.*\bIter \[(\d+)/\d+\]\s+(.*)')
SCORED = re.compile(r'.*\bIter\(val\) \[(\d+)\]\s+(.*)')
SAVED = re.compile(r'.*\bSaving checkpoint at (\d+) iterations')
BY_EPOCH = re.compile(r'.*\bEpoch \[\d+\]\[\d+/\d+\]')
PAIR = re.compile(r'([^\s,:\[\]][^,:\[\]]*): (\[[^\]]*\]|[^,]*)')
# In the text of the config, which opens the log.
EVALUATION = re.compile(r'\bevaluation\s*=\s*dict\([^()]*?\binterval=(\d+)')

TRAIN_NAMES = ('loss', 'lr')
SCORE_NAMES = ('mIoU', 'mAcc', 'aAcc')
PERCENT_DIGITS = 6  # more than mmcv writes (4 decimals of a fraction in text, 5 in JSON): 47.2, not 47.199999999999996
BINARY_PROBE = 4096  # bytes that are searched for a NUL, which no UTF-8 text holds
EXPECTED = (
    "expected is a log of mmcv 1.x with lines such as '... - mmseg - INFO - Iter [50/80000]  lr: 1.306e-06, ..., "
    "loss: 4.6129', or its .log.json form with lines such as "
    '{"mode": "train", "epoch": 1, "iter": 50, "lr": 1.306e-06, "loss": 4.6129}'
)


@dataclasses.dataclass(frozen=True)
class MmcvLog:
    """What a log states, and what was wrong with it.

    Args:
        curves: Name -> iteration -> value: `loss` and `lr` as logged (also nan and inf), `mIoU`, `mAcc` and `aAcc` in
            percent. Where an iteration was logged again, the later line counts.
        undecodable: Lines that are not UTF-8; they were read with replacement characters.
        incomplete: Training and evaluation lines that broke off.
        repeated: Training lines for an iteration that an earlier line had stated.
        unplaced: Evaluations before the first training line, whose iteration is unknown; left out.
    """

    curves: dict[str, Curve]
    undecodable: int = 0
    incomplete: int = 0
    repeated: int = 0
    unplaced: int = 0

    def notes(self) -> list[str]:
        """One sentence for each kind of damage that was found."""
        counts = (
            (self.undecodable, 'not UTF-8: read with replacement characters'),
            (self.incomplete, 'broken off: read as far as whole'),
            (self.repeated, 'of an iteration logged before: the later one counts'),
            (self.unplaced, 'with scores before the first training line: left out'),
        )
        return [f'{count} line{"" if count == 1 else "s"} {text}' for count, text in counts if count]


@dataclasses.dataclass(frozen=True)
class _Event:
    """A line that matters. `number`: its iteration, or for scores what the bracket holds."""

    kind: Literal['trained', 'scored', 'saved', 'broken']
    number: int = 0
    values: dict[str, float] = dataclasses.field(default_factory=dict)
    broken: bool = False
    epoch: int | None = None


def read_mmcv_log(source: str | Path) -> MmcvLog:
    """Reads a training log of mmcv 1.x.

    An evaluation does not state its iteration: mmcv prints the number of validation batches there. It belongs to the
    last training line or saved checkpoint above it, rounded up to the evaluation interval (from the config text in the
    log, else the distance between evaluations) where that is at most one logging interval away.

    Args:
        source: `<time>.log` or `<time>.log.json`, of one process or of several, whole or broken off.

    Raises:
        UserError: There is no such file, it is not text, it counts epochs, or it holds no training line.
    """
    path = Path(source)
    if not path.is_file():
        raise UserError(f'{path}: no such file; {EXPECTED}')
    lines, undecodable = _decoded_lines(path)
    events = list(_events(lines))
    trained = [event for event in events if event.kind == 'trained' and event.values]
    _check_iterations(path, lines, trained)
    evaluations, unplaced = _evaluations(events, trained, _stated_interval(lines))
    return MmcvLog(
        curves=_curves([(event.number, event.values) for event in trained], evaluations),
        undecodable=undecodable,
        incomplete=sum(event.broken for event in events),
        repeated=len(trained) - len({event.number for event in trained}),
        unplaced=unplaced,
    )


def _decoded_lines(path: Path) -> tuple[list[str], int]:
    """Lines with their ends, and how many were not UTF-8."""
    with path.open('rb') as file:
        if b'\0' in file.read(BINARY_PROBE):
            raise UserError(f'{path}: not a text in UTF-8; {EXPECTED}')
        file.seek(0)
        raw = file.readlines()
    lines = [line.decode('utf-8', errors='replace') for line in raw]
    damaged = sum(text.encode('utf-8') != line for text, line in zip(lines, raw, strict=True))
    return lines, damaged


def _events(lines: Iterable[str]) -> Iterator[_Event]:
    for line in lines:
        event = _json_event(line) if line.startswith('{"') else _text_event(line)
        if event is not None:
            yield event
        elif line.strip() and not line.endswith('\n'):
            yield _Event('broken', broken=True)


def _text_event(line: str) -> _Event | None:
    saved = SAVED.match(line)
    if saved:
        return _Event('saved', int(saved[1]))
    trained, scored = TRAINED.match(line), SCORED.match(line)
    match = trained or scored
    if match is None:
        return None
    # Without its line end, the last value of a line may lack digits.
    whole = line.endswith('\n')
    text = match[2] if whole else match[2].rpartition(', ')[0]
    pairs = {pair[1].strip(): _number(pair[2]) for pair in PAIR.finditer(text)}
    return _event('trained' if trained else 'scored', int(match[1]), pairs, whole)


def _json_event(line: str) -> _Event | None:
    try:
        row: dict[str, Any] = json.loads(line)
    except json.JSONDecodeError:
        # Other programs print text that opens with a brace; only a line of the log is counted.
        return _Event('broken', broken=True) if '"mode"' in line else None
    kinds: dict[object, Literal['trained', 'scored']] = {'train': 'trained', 'val': 'scored'}
    kind, number = kinds.get(row.get('mode')), row.get('iter')
    if kind is None or not isinstance(number, int):
        return None  # the first line describes the environment
    event = _event(kind, number, {name: _number(value) for name, value in row.items()}, whole=True)
    return dataclasses.replace(event, epoch=row.get('epoch'))


def _event(kind: Literal['trained', 'scored'], number: int, pairs: dict[str, float | None], whole: bool) -> _Event:
    names = TRAIN_NAMES if kind == 'trained' else SCORE_NAMES
    values = {name: value for name in names if (value := pairs.get(name)) is not None}
    return _Event(kind, number, values, broken=not whole or (kind == 'trained' and 'loss' not in values))


def _number(value: object) -> float | None:
    """A number, or the first of several: where mmcv logs one rate, it is that of the first parameter group."""
    if isinstance(value, str):
        value = value.strip()
        value = value[1:-1].split(',')[0] if value.startswith('[') else value
    elif isinstance(value, list):
        value = value[0] if value else None
    if not isinstance(value, str | int | float) or isinstance(value, bool):
        return None
    try:
        return float(value)
    except ValueError:
        return None


def _check_iterations(path: Path, lines: list[str], trained: list[_Event]) -> None:
    # In the JSON form, iterations that count within an epoch start again whenever the epoch rises.
    restarts = any(
        earlier.epoch is not None and later.epoch is not None and later.epoch > earlier.epoch
        and later.number <= earlier.number for earlier, later in zip(trained, trained[1:], strict=False)
    )
    if restarts or (not trained and any(BY_EPOCH.match(line) for line in lines)):
        raise UserError(f'{path}: its training lines count within epochs, not iterations; {EXPECTED}')
    if not trained:
        raise UserError(f'{path}: no training line; {EXPECTED}')


def _stated_interval(lines: Iterable[str]) -> int | None:
    stated = EVALUATION.findall(''.join(lines))
    return int(stated[-1]) if stated else None


def _evaluations(events: list[_Event], trained: list[_Event], interval: int | None
                 ) -> tuple[list[tuple[int, dict[str, float]]], int]:
    """(iteration, scores) of every evaluation, and how many could not be placed."""
    reached: int | None = None
    placed: list[tuple[int, _Event]] = []
    for event in events:
        if event.kind in ('trained', 'saved'):
            reached = event.number
        elif event.kind == 'scored' and reached is not None:
            placed.append((reached, event))
    unplaced = sum(event.kind == 'scored' for event in events) - len(placed)
    logging = _smallest_step([event.number for event in trained]) or 0
    every = interval or _smallest_step([at for at, _ in placed])
    return [(_rounded(at, event.number, every, logging), event.values) for at, event in placed], unplaced


def _smallest_step(numbers: list[int]) -> int | None:
    steps = [later - earlier for earlier, later in zip(numbers, numbers[1:], strict=False) if later > earlier]
    return min(steps, default=None)


def _rounded(reached: int, bracket: int, every: int | None, logging: int) -> int:
    """Iteration of an evaluation after `reached`, where training is logged every `logging` iterations."""
    candidate = math.ceil(reached / every) * every if every else bracket
    return candidate if reached <= candidate <= reached + logging else reached


def _curves(*rows: list[tuple[int, dict[str, float]]]) -> dict[str, Curve]:
    """Name -> iteration -> value in order of iterations; a later row counts. Scores become percent.

    A log holds fractions if none of its scores exceeds 1.
    """
    curves: dict[str, Curve] = {}
    for iteration, values in itertools.chain(*rows):
        for name, value in values.items():
            curves.setdefault(name, {})[iteration] = value
    scores = [value for name in SCORE_NAMES for value in curves.get(name, {}).values() if math.isfinite(value)]
    scale = 100.0 if max(scores, default=0.0) <= 1.0 else 1.0
    return {
        name: {at: round(scale * curve[at], PERCENT_DIGITS) if name in SCORE_NAMES else curve[at]
               for at in sorted(curve)}
        for name, curve in curves.items()
    }
