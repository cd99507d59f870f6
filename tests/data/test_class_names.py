from __future__ import annotations

import pytest

from internvl_dense.data.class_names import read_class_names
from internvl_dense.errors import UserError


def test_names_in_order_of_their_ids(tmp_path):
    path = tmp_path / 'classes.txt'
    path.write_text('\ufeffroad\nsign symbol \nHäuser\n\n', encoding='utf-8')
    assert read_class_names(path) == ('road', 'sign symbol', 'Häuser')


@pytest.mark.parametrize(('text', 'messages'), [
    ('', ['holds no names']),
    ('road\n\nsky\nroad\n', ['line 2 is empty', "'road' stands there 2 times"]),
    ('\n'.join(map(str, range(256))), ['256 names']),
])
def test_all_faults_at_once(tmp_path, text, messages):
    (tmp_path / 'classes.txt').write_text(text)
    with pytest.raises(UserError) as error:
        read_class_names(tmp_path / 'classes.txt')
    assert all(message in str(error.value) for message in messages)


def test_missing_file_says_what_it_holds(tmp_path):
    with pytest.raises(UserError, match=r'classes.txt is missing: .* one class a line'):
        read_class_names(tmp_path / 'classes.txt')
