"""Figure 4: which interactions carry the prediction.

After figure 4 of arXiv 2605.17967.
"""

from collections.abc import Sequence
from math import isnan, log
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from sft_interactions.analysis.carriers import GROUPS, values_by_group
from sft_interactions.analysis.runs import Run
from sft_interactions.figures import panels
from sft_interactions.figures.style import CLASSES, GREY, SMALL, plain_style

NARROW = 1.9  # width of a panel in inches below which values are left out and names are upright
# How the other reading is marked.
OTHER: dict[str, Any] = {
    "linestyle": "none",
    "marker": "D",
    "markersize": 3,
    "markerfacecolor": "white",
    "markeredgecolor": "black",
    "markeredgewidth": 0.6,
}
ROWS = {  # metric to name
    "cross_entropy": "Testing cross-entropy\n(nats), lower is better",
    "contribution": "Average contribution\nof one interaction\n(log-odds)",
}
# Group to name and class.
BARS = {
    "removed": ("Removed", "removed"),
    "preserved": ("Preserved", "preserved"),
    "emerged in 1st stage": ("Emerged,\n1st stage", "emerged"),
    "emerged in 2nd stage": ("Emerged,\n2nd stage", "emerged"),
}


@plain_style()
def draw(runs: Sequence[Run], *, level: float) -> Figure:
    """Draw figure 4, one column a run.

    Args:
        runs: at least one.
        level: confidence level of the intervals in the metrics.
    """
    figure, grid, width = panels.run_columns(
        [run.label for run in runs], ROWS.values(), row_height=1.15
    )
    for column, run in enumerate(runs):
        for row, metric in enumerate(ROWS):
            _draw_panel(grid[row, column], run, metric, width, bottom=row == len(ROWS) - 1)
    empty = Line2D(
        [], [], color=GREY, linestyle="--", linewidth=0.8, label="no interactions (log 2)"
    )
    marks: list[Artist] = [panels.bar_handle(level), empty]
    if name := panels.other_reading_name(runs):
        marks.append(Line2D([], [], label=name, **OTHER))
    missing = any(
        np.isnan(values_by_group(run, metric)[0]).any() for run in runs for metric in ROWS
    )
    panels.add_legend_and_note(
        figure,
        [marks],
        f"{panels.means_name(runs)}. Emerged, 1st stage: those that are new at the end of the denoising "
        "stage; all other bars: at the last checkpoint. Every panel has its own scale."
        + " n/a: the run has no such stage or class."
        * missing,
    )
    return figure


def _draw_panel(axes: Axes, run: Run, metric: str, width: float, bottom: bool) -> None:
    positions = np.arange(len(GROUPS))
    names = [BARS[group][0] for group in GROUPS]
    colors = [CLASSES[BARS[group][1]].color for group in GROUPS]
    values, low, high = values_by_group(run, metric)
    axes.bar(positions, values, 0.62, color=colors, edgecolor="black", linewidth=0.5)
    axes.vlines(positions, low, high, **panels.INTERVAL)
    other = np.full(len(GROUPS), np.nan)
    if run.other_reading is not None:
        name = f"{metric}_{run.other_reading}"
        other = values_by_group(run, name)[0]
        axes.plot(positions + 0.2, other, gid=name, **OTHER)
    narrow = width < NARROW
    for position, value, top in zip(positions, values, high, strict=True):
        text = "n/a" if isnan(value) else "" if narrow else _short(value)
        base = 0 if isnan(value) else np.nanmax([value, top, 0])
        axes.annotate(
            text, (position, base), (0, 1.5), textcoords="offset points", ha="center",
            va="bottom", fontsize=SMALL, color=GREY if isnan(value) else "black",
        )  # fmt: skip
    axes.axhline(0, color="black", linewidth=0.5)
    ends = np.nan_to_num([values, low, high, other, np.zeros(len(GROUPS))])
    if metric == "cross_entropy":
        axes.axhline(log(2), color=GREY, linestyle="--", linewidth=0.8, zorder=0.5)
        ends = np.append(ends, log(2))
    span = np.ptp(ends) or 1.0
    axes.set_ylim(ends.min() - 0.05 * span * (ends.min() < 0), ends.max() + 0.16 * span)
    axes.set_xlim(-0.6, len(GROUPS) - 0.4)
    axes.locator_params(axis="y", nbins=5)
    axes.tick_params(axis="x", length=0, labelbottom=bottom)
    axes.set_xticks(positions, names, rotation=90 if narrow else 0, linespacing=1.0)


def _short(value: float) -> str:
    """Two decimals; a smaller value is only told to be small."""
    if value == 0 or abs(value) >= 0.005:
        return f"{value:.2f}".replace("-", "−")
    return "<0.01" if value > 0 else ">−0.01"
