from __future__ import annotations

import pytest

from internvl_dense.data.prepare.member_rules import (
    MAX_MEMBER_BYTES,
    MIB,
    Member,
    clean_path,
    faults_between,
    faults_of,
    total_fault,
)


@pytest.mark.parametrize(('name', 'path'), [
    ('a/b.png', 'a/b.png'), ('./a/b.png', 'a/b.png'), ('a//b/./c', 'a/b/c'), ('a/', 'a'), ('.', '')])
def test_clean_path(name: str, path: str) -> None:
    assert clean_path(name) == path


@pytest.mark.parametrize('member', [
    Member('train2017/000000000009.jpg', 10**5, 10**5),
    Member('./train2017/', 0, 0, 'folder'),
    Member('.', 0, None, 'folder'),
    Member('a..b/c...d', 5),
    Member('annotations/instances_train2017.json', 470 * MIB, 50 * MIB),
    Member('ü/ß.png', 1, 1),
    Member('small text', 10**6, 1000),
])
def test_ordinary_members(member: Member) -> None:
    assert list(faults_of(member)) == []


@pytest.mark.parametrize(('member', 'message'), [
    (Member('..', 0, 0, 'folder'), "with '..'"),
    (Member('a/../b', 0), "with '..'"),
    (Member('/a', 0), 'absolute'),
    (Member('//server/a', 0), 'absolute'),
    (Member('c:a', 0), 'drive letter'),
    (Member('a\\b', 0), 'backslash'),
    (Member('a\0b', 0), 'control characters'),
    (Member('', 0), 'no name'),
    (Member('./', 0), 'no name'),
    (Member('a', -1), '-1 bytes'),
    (Member('a', MAX_MEMBER_BYTES + 1), f'{MAX_MEMBER_BYTES} allowed'),
    (Member('a', 2 * MIB, 1000), 'decompression bomb'),
    (Member('a', 2 * MIB, 0), 'decompression bomb'),
    (Member('a', 0, 0, 'device'), 'a device; only files'),
    (Member('a', 0, 0, 'member of unknown kind'), 'a member of unknown kind; only files'),
    (Member('a', 0, 0, encrypted=True), 'encrypted'),
    (Member('a', 0, 0, method='zip method 9'), 'unpack it and name the folder'),
])
def test_one_fault(member: Member, message: str) -> None:
    (fault,) = faults_of(member)
    assert message in fault and repr(member.name) in fault


def test_a_member_may_break_several_rules() -> None:
    assert len(list(faults_of(Member('/../a', MAX_MEMBER_BYTES + 1, kind='symbolic link', encrypted=True)))) == 5


@pytest.mark.parametrize(('names', 'number'), [
    (['a', 'b'], 0), (['a', 'a'], 1), (['a', './a'], 1), (['a/b', 'A/B'], 1), (['stra\u00dfe', 'STRASSE'], 1),
    (['e\u0301', '\u00e9'], 1), (['a/', 'a/'], 0), (['a/', 'A/'], 0), (['a', 'a/b'], 1), (['a', 'A/b/c/d'], 1),
    (['a/', 'a'], 1)])
def test_members_that_collide(names: list[str], number: int) -> None:
    members = [Member(name, 0, kind='folder' if name.endswith('/') else 'file') for name in names]
    assert len(list(faults_between(members))) == number


def test_total() -> None:
    assert total_fault(MIB, 10) == '' and total_fault(10**9, 10**8) == ''
    assert 'decompression bomb' in total_fault(10**9, 10**6)
