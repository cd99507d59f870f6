"""mmengine's message hub as plain data and back, so that checkpoints hold no objects."""

from __future__ import annotations

from typing import Any

import numpy as np
from mmengine.logging import HistoryBuffer

Hub = dict[str, Any]


def hub_to_plain(state: Hub) -> Hub:
    """State of a message hub with each scalar history as two lists and a length."""
    scalars = {key: _buffer_to_plain(value) for key, value in state['log_scalars'].items()}
    return {'log_scalars': scalars, 'runtime_info': dict(state['runtime_info']),
            'resumed_keys': dict(state['resumed_keys'])}


def hub_from_plain(state: Hub) -> Hub:
    """The inverse of `hub_to_plain`; histories that are objects already stay as they are."""
    scalars = {key: _buffer_from_plain(value) if isinstance(value, dict) else value
               for key, value in state['log_scalars'].items()}
    return {**state, 'log_scalars': scalars}


def _buffer_to_plain(buffer: HistoryBuffer) -> Hub:
    values, counts = buffer.data
    return {'values': np.asarray(values, dtype=np.float64).tolist(), 'counts': np.asarray(counts).tolist(),
            'max_length': buffer.max_length}


def _buffer_from_plain(state: Hub) -> HistoryBuffer:
    return HistoryBuffer(state['values'], state['counts'], max_length=state['max_length'])
