"""What a table of checks is made of: rules, the problems they find, and one message for all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Literal, TypeVar

from internvl_dense.errors import UserError, problems

Subject = TypeVar('Subject')

# error: training would fail or learn from wrong labels; warning: allowed, worth a look; note: what was not checked.
Severity = Literal['error', 'warning', 'note']
SEVERITIES: tuple[Severity, ...] = ('error', 'warning', 'note')

# A file (None where no single one is to blame) and one sentence: value, rule, way out.
Finding = tuple[Path | None, str]


@dataclass(frozen=True)
class Rule(Generic[Subject]):
    """One row of a table of checks.

    Args:
        name: Short snake_case name, shown beside each of its problems.
        severity: How bad a breach is.
        find: Yields a finding for every breach in the subject; its docstring says what must hold.
    """

    name: str
    severity: Severity
    find: Callable[[Subject], Iterable[Finding]]

    @property
    def checks(self) -> str:
        """What must hold, in one sentence."""
        return (self.find.__doc__ or self.name).splitlines()[0]


@dataclass(frozen=True)
class Problem:
    """One breach of one rule."""

    rule: str
    severity: Severity
    file: Path | None
    message: str

    def __str__(self) -> str:
        return f'{self.file}: {self.message}' if self.file else self.message


def run_rules(rules: Sequence[Rule[Subject]], subject: Subject) -> list[Problem]:
    """Every problem of every rule, in the order of the table."""
    return [Problem(rule.name, rule.severity, file, text) for rule in rules for file, text in rule.find(subject)]


def format_problems(title: str, found: Sequence[Problem], limit: int = 5) -> str:
    """One message: a paragraph a rule, errors first, the first `limit` problems of each and how many more there are."""
    rows = []
    for severity in SEVERITIES:
        for name in dict.fromkeys(problem.rule for problem in found if problem.severity == severity):
            of_rule = [problem for problem in found if (problem.rule, problem.severity) == (name, severity)]
            rows.append(_paragraph(f'{severity} {name}', of_rule, limit))
    return problems(title, rows)


def raise_on_problems(found: Sequence[Problem], title: str = 'data', limit: int = 5) -> None:
    """Raises where at least one problem is an error; the message holds warnings and notes as well.

    Args:
        found: What the rules found.
        title: What was checked.
        limit: Problems shown of each rule.

    Raises:
        UserError: With everything found.
    """
    if any(problem.severity == 'error' for problem in found):
        raise UserError(format_problems(title, found, limit))


def _paragraph(head: str, of_rule: Sequence[Problem], limit: int) -> str:
    if len(of_rule) == 1:
        return f'{head}: {of_rule[0]}'
    lines = [f'{head} ({len(of_rule)} times):', *(f'    {problem}' for problem in of_rule[:limit])]
    if len(of_rule) > limit:
        lines.append(f'    and {len(of_rule) - limit} more')
    return '\n'.join(lines)
