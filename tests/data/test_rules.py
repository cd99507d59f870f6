from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from internvl_dense.data.rules import Finding, Problem, Rule, format_problems, raise_on_problems, run_rules
from internvl_dense.errors import UserError


def negative(numbers: list[int]) -> Iterator[Finding]:
    """Numbers are not negative.

    More words.
    """
    for number in numbers:
        if number < 0:
            yield Path(f'{number}.txt'), f'{number} is negative'


def many(numbers: list[int]) -> Iterator[Finding]:
    """There are few numbers."""
    if len(numbers) > 3:
        yield None, f'{len(numbers)} numbers'


RULES = (Rule('many', 'warning', many), Rule('negative', 'error', negative))


def test_every_rule_runs_in_the_order_of_the_table() -> None:
    found = run_rules(RULES, [1, -2, 3, -4])
    assert [(problem.rule, problem.severity) for problem in found] == [
        ('many', 'warning'),
        ('negative', 'error'),
        ('negative', 'error'),
    ]
    assert str(found[1]) == '-2.txt: -2 is negative'
    assert str(found[0]) == '4 numbers'
    assert RULES[1].checks == 'Numbers are not negative.'


def test_the_message_groups_by_rule_and_counts_what_it_does_not_show() -> None:
    text = format_problems('numbers', run_rules(RULES, [-index for index in range(1, 10)]), limit=2)
    assert text.splitlines() == [
        'numbers: 2 problems',
        '  - error negative (9 times):',
        '    -1.txt: -1 is negative',
        '    -2.txt: -2 is negative',
        '    and 7 more',
        '  - warning many: 9 numbers',
    ]


def test_only_errors_raise_and_bring_the_warnings_along() -> None:
    raise_on_problems([])
    raise_on_problems(run_rules(RULES, [1, 2, 3, 4]))
    with pytest.raises(UserError) as caught:
        raise_on_problems(run_rules(RULES, [1, 2, 3, -4]), 'numbers')
    assert 'error negative: -4.txt' in str(caught.value)
    assert 'warning many: 4 numbers' in str(caught.value)


def test_one_rule_name_with_two_severities_is_shown_once_each() -> None:
    found = [Problem('x', 'error', None, 'bad'), Problem('x', 'note', None, 'aside')]
    assert format_problems('both', found).splitlines() == [
        'both: 2 problems',
        '  - error x: bad',
        '  - note x: aside',
    ]
