"""The text of a config in a checkpoint is a program; nothing that loads the checkpoint runs it."""

from __future__ import annotations

import pytest
import torch
from mmseg.apis import MMSegInferencer

from internvl_dense.openmmlab import loading


def entry(content, where):
    """The dictionary that holds the last name of `where`."""
    for key in where[:-1]:
        content = content[key]
    return content


@pytest.mark.parametrize('where', loading.CONFIG_TEXTS, ids='.'.join)
def test_config_text_in_a_checkpoint_is_never_run(tmp_path, where):
    mark, armed = tmp_path / 'mark', tmp_path / 'armed.pth'
    content = {'meta': {}, 'message_hub': {'runtime_info': {}}, 'state_dict': {}}
    entry(content, where)[where[-1]] = f'open({str(mark)!r}, "w").close()\n'
    torch.save(content, armed)
    with pytest.raises(Exception, match='config'):
        MMSegInferencer(None, weights=str(armed))
    assert not mark.exists()
    read = entry(loading.load_from_local_safely(str(armed)), where)  # what a runner's resume would see
    assert where[-1] not in read and f'{where[-1]}_text' in read
