from __future__ import annotations

import json
import random
import re
from fractions import Fraction
from pathlib import Path

import pytest

from internvl_dense.data.few_shot import few_shot_names, read_list, record_path, write_list
from internvl_dense.errors import UserError

ADE20K = [f'ADE_train_{index:08d}' for index in range(1, 20211)]


@pytest.mark.parametrize(('fraction', 'count'), [('1/16', 1263), ('1/8', 2526), ('1/4', 5052), ('1/2', 10105)])
def test_counts_of_the_published_few_shot_runs(fraction: str, count: int) -> None:
    assert len(few_shot_names(ADE20K, fraction)) == count


def test_the_subset_is_that_of_a_seeded_shuffle_of_sorted_names() -> None:
    names = list(ADE20K)
    random.seed(7)
    random.shuffle(names)
    assert few_shot_names(ADE20K, Fraction(1, 16), seed=7) == names[:1263]


def test_only_names_and_seed_count() -> None:
    state = random.getstate()
    subset = few_shot_names(ADE20K, '1/16', seed=1)
    assert few_shot_names(ADE20K[::-1], '1/16', seed=1) == subset
    assert few_shot_names(ADE20K, '1/16', seed=2) != subset
    assert few_shot_names(ADE20K, count=2526, seed=1)[:1263] == subset
    assert random.getstate() == state
    assert ADE20K[0].endswith('1')


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({}, 'a fraction or a count'),
        ({'fraction': '1/2', 'count': 1}, 'a fraction or a count'),
        ({'fraction': '1/9'}, '1/9 of 4 names are 0'),
        ({'count': 5}, 'between 1 and 4'),
        ({'count': 0}, 'between 1 and 4'),
        ({'fraction': 'half'}, "write it as '1/16'"),
        ({'fraction': '1/0'}, "write it as '1/16'"),
    ],
)
def test_impossible_subsets_are_refused(options: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        few_shot_names(list('abcd'), **options)


def test_names_given_twice_are_refused() -> None:
    with pytest.raises(UserError, match='more than once: a'):
        few_shot_names(['a', 'b', 'a'], count=1)


def test_a_list_file_holds_names_only_and_its_record_the_rest(tmp_path: Path) -> None:
    path = tmp_path / 'training_1of2_seed3.txt'
    write_list(path, ['b', 'a'], seed=3, total=4)
    assert path.read_text() == 'b\na\n'
    record = json.loads(record_path(path).read_text())
    assert (record['seed'], record['count'], record['of']) == (3, 2, 4)
    assert read_list(path) == ['b', 'a']


def test_read_list_refuses_what_mmseg_would_take_for_a_name(tmp_path: Path) -> None:
    path = tmp_path / 'list.txt'
    path.write_text(' folder/a \r\nb\n')
    assert read_list(path) == ['folder/a', 'b']
    for text, lines in (('# seed 0\na\n', '[1]'), ('a\n\nb\n', '[2]')):
        path.write_text(text)
        with pytest.raises(UserError, match=re.escape(lines)):
            read_list(path)
    path.write_text('')
    with pytest.raises(UserError, match='no names'):
        read_list(path)
    with pytest.raises(UserError, match='no such list'):
        read_list(tmp_path / 'absent.txt')
