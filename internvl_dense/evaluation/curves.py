"""Loss and mIoU of a run, from the scalars that its logger wrote, as a picture."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING

from internvl_dense.errors import UserError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Where mmengine's local logger writes inside a work directory: <start time>/vis_data/scalars.json, one JSON a line.
SCALARS = '*/vis_data/scalars.json'

Curve = dict[int, float]  # step -> value, in order of steps
FIGURE_INCHES = (8.0, 6.0)
DOTS_PER_INCH = 120
SMOOTHING = 0.8  # share of the past in the running mean that is drawn over the raw loss


def read_scalars(source: str | Path) -> dict[str, Curve]:
    """Every number that a run logged.

    Args:
        source: A scalars file, or the work directory of a run. Where a resumed run logged a step again, the later start
            counts.

    Returns:
        Name -> step (iteration or epoch, as the run counts) -> value.

    Raises:
        UserError: There is no such file, a line is not JSON, or nothing was logged.
    """
    path = Path(source)
    files = sorted(path.glob(SCALARS)) if path.is_dir() else [path]
    if not files or not files[0].is_file():
        raise UserError(f'{path}: no scalars there. Give a scalars.json or a work directory that holds {SCALARS}')
    curves: dict[str, Curve] = {}
    for file in files:
        for step, name, value in _entries(file):
            curves.setdefault(name, {})[step] = value
    if not curves:
        raise UserError(f'{path}: no scalars were logged; the run stopped before its first log line')
    return {name: dict(sorted(curve.items())) for name, curve in curves.items()}


def draw_curves(source: str | Path, target: str | Path, title: str = '') -> Path:
    """Draws training loss above validation mIoU.

    Args:
        source: As in `read_scalars`.
        target: PNG file to write.
        title: Heading of the picture.

    Returns:
        The written file.

    Raises:
        UserError: There are no scalars, or neither `loss` nor `mIoU` among them.
    """
    curves = read_scalars(source)
    losses = {name: curve for name, curve in curves.items() if name == 'loss'}
    scores = {name: curve for name, curve in curves.items() if name.split('/')[-1] == 'mIoU'}
    panels = [(draw, found) for draw, found in ((_draw_loss, losses), (_draw_scores, scores)) if found]
    if not panels:
        raise UserError(f'{source}: neither loss nor mIoU was logged, only {sorted(curves)}')
    figure, rows = stacked_panels(len(panels), FIGURE_INCHES)
    for axes, (draw, found) in zip(rows, panels, strict=True):
        draw(axes, found)
        axes.legend()
    rows[-1].set_xlabel('step')
    figure.suptitle(title)
    return save_png(figure, target)


def stacked_panels(count: int, inches: tuple[float, float]) -> tuple[Figure, list[Axes]]:
    """A figure of `inches` (width, height) with `count` panels one below the other over a common horizontal axis."""
    # Figure and canvas rather than pyplot: no window system is looked for and no global state is left.
    from matplotlib.figure import Figure

    figure = Figure(figsize=inches, dpi=DOTS_PER_INCH, layout='constrained')
    rows: list[Axes] = list(figure.subplots(count, 1, sharex=True, squeeze=False)[:, 0])
    for axes in rows:
        axes.grid(alpha=0.3)
    return figure, rows


def save_png(figure: Figure, target: str | Path) -> Path:
    """Writes a figure, with the folders above it; returns the file."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    path = Path(target)
    path.parent.mkdir(parents=True, exist_ok=True)
    FigureCanvasAgg(figure).print_png(str(path))
    return path


def _entries(file: Path) -> list[tuple[int, str, float]]:
    """(step, name, value) of each number in a file."""
    found: list[tuple[int, str, float]] = []
    for number, line in enumerate(file.read_text(encoding='utf-8').splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            way_out = 'delete the line if the run was cut off there'
            raise UserError(f'{file}:{number}: not JSON ({error}); {way_out}') from error
        step = row.pop('step', 0)
        found.extend((step, name, float(value)) for name, value in row.items() if _is_number(value))
    return found


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _draw_loss(axes: Axes, curves: dict[str, Curve]) -> None:
    for name, curve in curves.items():
        steps, values = list(curve), list(curve.values())
        line = axes.plot(steps, values, alpha=0.35, label=name)[0]
        axes.plot(steps, running_mean(values), color=line.get_color(), label=f'{name}, running mean')
    axes.set_ylabel('training loss')


def _draw_scores(axes: Axes, curves: dict[str, Curve]) -> None:
    for name, curve in curves.items():
        best = max(curve, key=lambda step: (curve[step], -step))
        axes.plot(list(curve), list(curve.values()), marker='o', label=f'{name}, best {curve[best]:.2f} at {best}')
    axes.set_ylabel('mIoU (%)')


def running_mean(values: list[float], keep: float = SMOOTHING) -> list[float]:
    """Exponential mean that starts unbiased; a value that is not finite leaves it where it is."""
    means: list[float] = []
    total = weight = 0.0
    for value in values:
        if math.isfinite(value):
            total, weight = keep * total + (1 - keep) * value, keep * weight + (1 - keep)
        means.append(total / weight if weight else math.nan)
    return means
