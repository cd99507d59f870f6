"""The two programs behind `deform_attn_triton`: imported only where Triton is installed.

A program serves one image, one head and a block of queries. Its tile has a row for each query and a column for each
channel of the head. A sample at (x, y) of a map lies between four cells; with fractions (fx, fy) towards the right and
the lower ones it is

    (1 - fy) ((1 - fx) v00 + fx v01) + fy ((1 - fx) v10 + fx v11),

and cells beyond the map count as zero. Everything is added up in fp32, or in fp64 for fp64 values.
"""

from __future__ import annotations

import importlib
from typing import Any

triton: Any = importlib.import_module('triton')
tl: Any = importlib.import_module('triton.language')


@triton.jit
def place(locations, at, map_height, map_width, live, kind):  # type: ignore[no-untyped-def]
    """Column and row of the upper left cell of each sample, and the fractions towards the next ones."""
    x = tl.load(locations + at * 2, mask=live, other=0.0).to(kind) * map_width - 0.5
    y = tl.load(locations + at * 2 + 1, mask=live, other=0.0).to(kind) * map_height - 0.5
    left, top = tl.floor(x), tl.floor(y)
    # A place far outside would not fit an integer; whatever is further out than this sees no cell either.
    column = tl.minimum(tl.maximum(left, -2.0), map_width + 1.0).to(tl.int32)
    row = tl.minimum(tl.maximum(top, -2.0), map_height + 1.0).to(tl.int32)
    return column, row, x - left, y - top


@triton.jit
def corner(start, column, row, map_height, map_width, live):  # type: ignore[no-untyped-def]
    """Token of a cell of a map, and whether there is such a cell."""
    inside = live & (column >= 0) & (column < map_width) & (row >= 0) & (row < map_height)
    return start + row * map_width + column, inside


@triton.jit
def read(base, token, inside, stride, columns, columns_live, kind):  # type: ignore[no-untyped-def]
    """Channels of one cell for each query; zeros where there is no cell."""
    mask = inside[:, None] & columns_live[None, :]
    return tl.load(base + token[:, None] * stride + columns[None, :], mask=mask, other=0.0).to(kind)


@triton.jit
def add(base, token, inside, factor, grad, stride, columns, columns_live):  # type: ignore[no-untyped-def]
    """Adds the gradient times a factor to the channels of one cell, for each query."""
    mask = inside[:, None] & columns_live[None, :]
    tl.atomic_add(base + token[:, None] * stride + columns[None, :], factor[:, None] * grad, mask=mask, sem='relaxed')


@triton.jit
def forward_kernel(  # type: ignore[no-untyped-def]
    value, locations, weights, out, table, queries, length, heads, channels,
    levels: tl.constexpr, points: tl.constexpr, block: tl.constexpr, width: tl.constexpr, double: tl.constexpr,
):
    """Weighted samples of every query; the docstring of the module says how one is made."""
    kind: tl.constexpr = tl.float64 if double else tl.float32
    rows = tl.program_id(0) * block + tl.arange(0, block)
    head = tl.program_id(1)
    image = tl.program_id(2).to(tl.int64)
    live = rows < queries
    columns = tl.arange(0, width)
    columns_live = columns < channels
    stride = heads * channels
    base = value + image * length * stride + head * channels
    query = (image * queries + rows) * heads + head
    total = tl.zeros((block, width), dtype=kind)
    for level in range(levels):
        map_height = tl.load(table + level * 3)
        map_width = tl.load(table + level * 3 + 1)
        start = tl.load(table + level * 3 + 2)
        for point in range(points):
            at = (query * levels + level) * points + point
            x, y, fx, fy = place(locations, at, map_height, map_width, live, kind)
            weight = tl.load(weights + at, mask=live, other=0.0).to(kind)
            t00, in00 = corner(start, x, y, map_height, map_width, live)
            t01, in01 = corner(start, x + 1, y, map_height, map_width, live)
            t10, in10 = corner(start, x, y + 1, map_height, map_width, live)
            t11, in11 = corner(start, x + 1, y + 1, map_height, map_width, live)
            upper = (1 - fx)[:, None] * read(base, t00, in00, stride, columns, columns_live, kind)
            upper += fx[:, None] * read(base, t01, in01, stride, columns, columns_live, kind)
            lower = (1 - fx)[:, None] * read(base, t10, in10, stride, columns, columns_live, kind)
            lower += fx[:, None] * read(base, t11, in11, stride, columns, columns_live, kind)
            total += weight[:, None] * ((1 - fy)[:, None] * upper + fy[:, None] * lower)
    mask = live[:, None] & columns_live[None, :]
    tl.store(out + query[:, None] * channels + columns[None, :], total.to(out.dtype.element_ty), mask=mask)


@triton.jit
def backward_kernel(  # type: ignore[no-untyped-def]
    value, locations, weights, grad_out, grad_value, grad_locations, grad_weights, table, queries, length, heads,
    channels, levels: tl.constexpr, points: tl.constexpr, block: tl.constexpr, width: tl.constexpr,
    double: tl.constexpr,
):
    """Gradients of locations and weights, and those of the values added to `grad_value`, which starts at zero."""
    kind: tl.constexpr = tl.float64 if double else tl.float32
    rows = tl.program_id(0) * block + tl.arange(0, block)
    head = tl.program_id(1)
    image = tl.program_id(2).to(tl.int64)
    live = rows < queries
    columns = tl.arange(0, width)
    columns_live = columns < channels
    stride = heads * channels
    offset = image * length * stride + head * channels
    base, grad_base = value + offset, grad_value + offset
    query = (image * queries + rows) * heads + head
    mask = live[:, None] & columns_live[None, :]
    grad = tl.load(grad_out + query[:, None] * channels + columns[None, :], mask=mask, other=0.0).to(kind)
    for level in range(levels):
        map_height = tl.load(table + level * 3)
        map_width = tl.load(table + level * 3 + 1)
        start = tl.load(table + level * 3 + 2)
        for point in range(points):
            at = (query * levels + level) * points + point
            x, y, fx, fy = place(locations, at, map_height, map_width, live, kind)
            weight = tl.load(weights + at, mask=live, other=0.0).to(kind)
            t00, in00 = corner(start, x, y, map_height, map_width, live)
            t01, in01 = corner(start, x + 1, y, map_height, map_width, live)
            t10, in10 = corner(start, x, y + 1, map_height, map_width, live)
            t11, in11 = corner(start, x + 1, y + 1, map_height, map_width, live)
            # What each cell has to do with the gradient: their product over the channels of a query.
            g00 = tl.sum(grad * read(base, t00, in00, stride, columns, columns_live, kind), axis=1)
            g01 = tl.sum(grad * read(base, t01, in01, stride, columns, columns_live, kind), axis=1)
            g10 = tl.sum(grad * read(base, t10, in10, stride, columns, columns_live, kind), axis=1)
            g11 = tl.sum(grad * read(base, t11, in11, stride, columns, columns_live, kind), axis=1)
            grad_weight = (1 - fy) * ((1 - fx) * g00 + fx * g01) + fy * ((1 - fx) * g10 + fx * g11)
            grad_x = weight * map_width * ((1 - fy) * (g01 - g00) + fy * (g11 - g10))
            grad_y = weight * map_height * ((1 - fx) * (g10 - g00) + fx * (g11 - g01))
            tl.store(grad_weights + at, grad_weight.to(grad_weights.dtype.element_ty), mask=live)
            tl.store(grad_locations + at * 2, grad_x.to(grad_locations.dtype.element_ty), mask=live)
            tl.store(grad_locations + at * 2 + 1, grad_y.to(grad_locations.dtype.element_ty), mask=live)
            add(grad_base, t00, in00, weight * (1 - fx) * (1 - fy), grad, stride, columns, columns_live)
            add(grad_base, t01, in01, weight * fx * (1 - fy), grad, stride, columns, columns_live)
            add(grad_base, t10, in10, weight * (1 - fx) * fy, grad, stride, columns, columns_live)
            add(grad_base, t11, in11, weight * fx * fy, grad, stride, columns, columns_live)
