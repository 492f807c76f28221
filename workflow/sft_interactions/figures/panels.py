"""Parts that several figures share: stages, lines with intervals, ticks, the note at the bottom."""

import textwrap
from collections.abc import Iterable, Sequence
from itertools import chain, pairwise, zip_longest
from math import floor, log10
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray

from sft_interactions.analysis.choices import JOINT, SINGLE
from sft_interactions.analysis.runs import Run
from sft_interactions.figures.style import (
    CLASSES,
    COLUMN_WIDTH,
    DENOISING,
    GREY,
    LARGE,
    LOGARITHMIC,
    MEDIUM,
    OVERFITTING,
    SMALL,
    TEXT_WIDTH,
)

BAND_ALPHA = 0.16
# A checkpoint lies far beyond the others if it is so many times as large as they are.
FAR_BEYOND = 5.0
# Intervals on bars: a dark bar would hide a black line without its white edge.
INTERVAL: dict[str, Any] = {
    "color": "black",
    "linewidth": 0.7,
    "path_effects": [withStroke(linewidth=2.0, foreground="white")],
}
FLOOR_NAME = "churn floor: what noise alone gives"
_OTHER_NAMES = {JOINT: "reading that changes least", SINGLE: "each checkpoint by itself"}
_OTHER: dict[str, Any] = {"linestyle": (0, (1, 1.2)), "linewidth": 1.3}
_FLOOR_STYLE: dict[str, Any] = {
    "facecolor": "none",
    "hatch": "//////",
    "linewidth": 0.4,
    "zorder": 1,
}


def shade_stages(axes: Axes, run: Run, positions: NDArray[np.float64]) -> None:
    """Shade the denoising stage, and overfitting from where the verdict says that the run overfits."""
    first, boundary, last = positions[0], positions[run.boundary], positions[-1]
    axes.axvspan(first, boundary, color=DENOISING[0], linewidth=0, zorder=0, gid="denoising")
    if run.overfits_from is not None:
        start = float(np.interp(run.overfits_from, run.steps, positions))
        axes.axvspan(start, last, color=OVERFITTING[0], linewidth=0, zorder=0, gid="overfitting")
    # The two areas look the same in greyscale.
    axes.axvline(boundary, color=GREY, linestyle=":", linewidth=0.8, zorder=0.5)


def draw_line(
    axes: Axes, run: Run, label: str, metric: str, positions: NDArray[np.float64]
) -> None:
    """Draw a metric of a class over the checkpoints with its interval; null values are gaps."""
    style = CLASSES[label]
    value, low, high = run.series(label, metric)
    axes.fill_between(positions, low, high, color=style.color, alpha=BAND_ALPHA, linewidth=0)
    # Preserved is drawn last: it is the class that the others are compared with.
    axes.plot(
        positions,
        value,
        color=style.color,
        marker=style.marker,
        label=style.name,
        gid=f"{metric}:{label}",
        clip_on=False,
        zorder=4 if label == "preserved" else 3,
    )


def beside_another(there: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Whether the checkpoint before or after has something, (checkpoints,) as ``there``."""
    edged = np.pad(there, 1)
    beside: NDArray[np.bool_] = edged[:-2] | edged[2:]
    return beside


def draw_floor(
    axes: Axes,
    run: Run,
    metric: str,
    positions: NDArray[np.float64],
    labels: Iterable[str] = ("removed", "emerged"),
) -> None:
    """Hatch what noise alone would give for the removed and the emerged interactions among ``labels``.

    For ``count`` from 0 to its churn floor, else the interval of the floor.
    """
    if not run.has_churn_floor:
        return
    name = "churn_floor" if metric == "count" else f"{metric}_churn_floor"
    for label in labels:
        value, low, high = run.series(label, name)
        if label == "preserved":
            continue
        if metric == "count":
            low, high = np.zeros_like(value), value
        else:
            # Of one checkpoint between others without an interval there would be a line.
            high = np.where(beside_another(np.isfinite(high)), high, np.nan)
        axes.fill_between(
            positions, low, high, edgecolor=GREY, gid=f"{name}:{label}", **_FLOOR_STYLE
        )


def draw_other_reading(
    axes: Axes, run: Run, label: str, metric: str, positions: NDArray[np.float64]
) -> None:
    """Dot a metric of a class in the other reading of the tables."""
    if run.other_reading is None:
        return
    name = f"{metric}_{run.other_reading}"
    value = run.series(label, name)[0]
    axes.plot(
        positions, value, color=CLASSES[label].color, gid=f"{name}:{label}", zorder=2.5, **_OTHER
    )


def other_reading_name(runs: Iterable[Run]) -> str | None:
    """Legend text of the other reading; None if there is none."""
    return next((_OTHER_NAMES[run.other_reading] for run in runs if run.other_reading), None)


def other_reading_handle(name: str) -> Artist:
    """Legend entry of the other reading."""
    return Line2D([], [], color=GREY, label=name, **_OTHER)


def floor_handle() -> Artist:
    """Legend entry of the churn floor."""
    return Patch(edgecolor=GREY, label=FLOOR_NAME, **_FLOOR_STYLE)


def label_steps(
    axes: Axes, steps: Sequence[int], positions: NDArray[np.float64], width: float
) -> None:
    """Put the steps under an axis of ``width`` inches, upright where they would touch.

    The checkpoints are evenly spaced whatever their steps, as in the paper.
    """
    digit = 0.64 * SMALL / 72  # inches, of the font in use
    room = width * np.diff(positions).min() / np.ptp(axes.get_xlim())
    crowded = (max(len(str(step)) for step in steps) + 1) * digit > room
    axes.set_xticks(positions, [str(step) for step in steps], rotation=90 if crowded else 0)


def line_handles() -> list[Artist]:
    """Legend entries of the three lines, in the order of the figures' rows."""
    return [
        Line2D([], [], color=style.color, marker=style.marker, label=style.name)
        for style in CLASSES.values()
    ]


def stage_handles(runs: Iterable[Run]) -> list[Artist]:
    """Legend entries of the stages that are drawn."""
    stages = {"Denoising stage": DENOISING}
    if any(run.overfits_from is not None for run in runs):
        stages["Overfitting"] = OVERFITTING
    return [
        Patch(facecolor=area, edgecolor=edge, linewidth=0.4, label=name)
        for name, (area, edge) in stages.items()
    ]


def band_handle(level: float) -> Artist:
    """Legend entry of the bands, which are intervals over samples."""
    return Patch(facecolor=GREY, alpha=2 * BAND_ALPHA, linewidth=0, label=interval_name(level))


def bar_handle(level: float) -> Artist:
    """Legend entry of the thin upright lines, which are intervals over samples."""
    return Line2D(
        [],
        [],
        color="black",
        linestyle="none",
        marker="|",
        markersize=6,
        label=interval_name(level),
    )


def interval_name(level: float) -> str:
    """Such as ``95 % interval``."""
    return f"{100 * level:g} % interval"


def samples_name(counts: Iterable[int]) -> str:
    """Such as ``9 samples``, or ``9 to 12 samples`` where the counts of runs differ."""
    counts = sorted(set(counts))
    number = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    return f"{number} sample" + ("" if counts == [1] else "s")


def means_name(runs: Sequence[Run]) -> str:
    """Such as ``Means over 9 samples, n = 10 players``."""
    return (
        f"Means over {samples_name(run.n_samples for run in runs)}, n = {runs[0].n_players} players"
    )


def find_usual(sizes: Iterable[float]) -> float | None:
    """Up to where most checkpoints reach, if some lie far beyond; None if none does.

    Args:
        sizes: the largest absolute value of each checkpoint; NaN where there is none.

    Returns:
        The largest size of those that do not lie far beyond, which are at least one half, and at least two.
    """
    known = np.sort([size for size in sizes if np.isfinite(size) and size > 0])
    for usual, larger in pairwise(known):
        n_usual = int(np.sum(known <= usual))
        if larger > FAR_BEYOND * usual and n_usual >= max(2, len(known) / 2):
            return float(usual)
    return None


def set_scale(group: Sequence[Axes], low: float, high: float, usual: float | None) -> None:
    """Give panels one upright scale that holds all values.

    Args:
        group: the panels.
        low: the least value, at most 0.
        high: the largest value, at least 0.
        usual: of :func:`find_usual`: beyond it, up and down, the scale is logarithmic, and the area grey.
    """
    margin = 0.06 * (high - low) or 1.0
    for axes in group:
        if usual is None:
            axes.set_ylim(low - margin * (low < 0), high + margin * (high > 0))
            continue
        axes.set_yscale("symlog", linthresh=usual, linscale=1.0)
        axes.set_ylim(1.3 * low, 1.3 * high)
        ends = [sign * _round_down(size) for sign, size in _reached(low, high, usual)]
        ticks = sorted({0.0, *ends})
        axes.set_yticks(ticks, [f"{tick:g}".replace("-", "−") for tick in ticks])
        axes.set_yticks([], minor=True)
        for sign, size in ((1, high), (-1, -low)):
            if size > usual:
                axes.axhspan(
                    sign * usual,
                    sign * 2 * size,
                    color=LOGARITHMIC,
                    linewidth=0,
                    zorder=0,
                    gid="logarithmic",
                )


def _reached(low: float, high: float, usual: float) -> list[tuple[int, float]]:
    """Sign and size of the places of a scale that is logarithmic beyond ``usual``."""
    ends = ((1, high), (-1, -low))
    return [(sign, min(size, end)) for sign, end in ends for size in (usual, end) if end > 0]


def _round_down(size: float) -> float:
    """To one digit."""
    unit = 10.0 ** floor(log10(size))
    return floor(size / unit * (1 + 1e-9)) * unit


LOGARITHMIC_NOTE = (
    "Grey ground: the scale is logarithmic, since some checkpoint lies far beyond the others."
)


def is_logarithmic(figure: Figure) -> bool:
    """Whether a panel of the figure has such a scale."""
    return any(axes.get_yscale() == "symlog" for axes in figure.axes)


def run_columns(
    labels: Sequence[str], rows: Iterable[str], *, row_height: float
) -> tuple[Figure, NDArray[np.object_], float]:
    """A grid of panels with one column a run, titled, and one named row a metric.

    Args:
        labels: titles of the runs.
        rows: names of the rows.
        row_height: in inches.

    Returns:
        the figure, its panels (rows, runs), and the width of a panel in inches.
    """
    names = list(rows)
    whole = COLUMN_WIDTH if len(labels) == 1 else TEXT_WIDTH
    width = (whole - 0.5) / len(labels) - 0.25
    layout = ConstrainedLayoutEngine(w_pad=0.04, h_pad=0.03, wspace=0.02, hspace=0.03)
    figure = Figure(figsize=(whole, row_height * len(names) + 1.3), layout=layout)
    grid = figure.subplots(len(names), len(labels), squeeze=False)
    size = LARGE if len(labels) < 4 else MEDIUM
    letters = int((width + 0.2) / (0.7 * size / 72))  # of the bold font, which is wide
    for column, label in enumerate(labels):
        title = wrap(label, letters)
        grid[0, column].set_title(title, fontsize=size, fontweight="bold", linespacing=1.0)
    for row, name in enumerate(names):
        grid[row, 0].set_ylabel(name)
    figure.align_ylabels(grid[:, 0])
    figure.align_xlabels(grid[-1])
    return figure, grid, width


def wrap(label: str, letters: int) -> str:
    """Break a run's label, first before "on" as in the paper, into lines of so many letters."""
    if len(label) <= letters:
        return label
    lines = label.replace(" on ", "\non ", 1).splitlines()
    return "\n".join("\n".join(textwrap.wrap(line, letters)) for line in lines)


def add_legend_and_note(figure: Figure, rows: Sequence[Sequence[Artist]], note: str) -> None:
    """Put one legend above all panels and a note in small print below them, and fix the layout.

    Args:
        rows: rows of the legend; on a narrow figure they become its columns.
    """
    blank = Patch(visible=False, label=" ")
    table = list(zip_longest(*rows, fillvalue=blank))  # by column, as legends are filled
    if figure.get_figwidth() < TEXT_WIDTH:
        table = list(zip(*table, strict=True))
    figure.legend(
        handles=list(chain(*table)),
        loc="outside upper center",
        ncols=len(table),
        columnspacing=1.2,
        handlelength=2.2,
        handletextpad=0.5,
        borderpad=0.2,
    )
    letters = int(figure.get_figwidth() / (0.56 * SMALL / 72))
    figure.supxlabel(textwrap.fill(" ".join(note.split()), letters), fontsize=SMALL, color=GREY)
    # The layout moves a little whenever it runs; run once, it is the same in every file.
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
