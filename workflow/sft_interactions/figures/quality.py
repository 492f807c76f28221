"""Figure 3: quality of the three classes of interactions along the checkpoints.

After figure 3 of arXiv 2605.17967: generalizability (Eq. 9) and uncancelled effects (Eq. 10). Each class
has a panel of its own, so that its interval, its chance level and its churn floor can be told apart.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from sft_interactions.analysis.runs import Run
from sft_interactions.figures import panels
from sft_interactions.figures.style import CLASSES, GREY, SMALL, plain_style

METRICS = {"gamma": "γ", "rho": "ρ"}
ROW = 0.62  # inches
CHANCE: dict[str, Any] = {"color": "black", "linestyle": "--", "linewidth": 0.8}


@plain_style()
def draw(runs: Sequence[Run], *, level: float) -> Figure:
    """Draw figure 3, one column a run, one row a metric and class.

    Args:
        runs: at least one.
        level: confidence level of the intervals in the metrics.
    """
    rows = [(metric, label) for metric in METRICS for label in CLASSES]
    # In two lines where it has two words.
    names = [
        f"{CLASSES[label].name} {METRICS[metric]}".replace(" ", "\n", 1) for metric, label in rows
    ]
    tops = [_top(runs, metric, label) for metric, label in rows]
    figure, grid, width = panels.run_columns([run.label for run in runs], names, row_height=ROW)
    for column, run in enumerate(runs):
        for row, (metric, label) in enumerate(rows):
            axes = grid[row, column]
            axes.set_label(f"{run.label}:{metric}:{label}")
            _draw_panel(axes, run, metric, label, width, tops[row], bottom=row == len(rows) - 1)
            if column:
                continue
            axes.yaxis.label.set_color(CLASSES[label].text)
            axes.yaxis.label.set_fontsize(SMALL)
    marks = [panels.band_handle(level), Line2D([], [], label="chance level", **CHANCE)]
    if any(run.has_churn_floor for run in runs):
        marks.append(panels.floor_handle())
    if name := panels.other_reading_name(runs):
        marks.append(panels.other_reading_handle(name))
    overfitting = (
        " Overfitting: from the step after which the validation loss rises."
        if any(run.overfits_from is not None for run in runs)
        else ""
    )
    panels.add_legend_and_note(
        figure,
        [[*panels.line_handles(), *panels.stage_handles(runs)], marks],
        f"{panels.means_name(runs)}. γ: generalizable share, ρ: uncancelled share, both of strength. "
        "Read a line against the chance level and the churn floor of its own panel; the scale of a row "
        f"ends at 0.25, 0.5 or 1. Nothing is removed or newly emerged before SFT.{overfitting}",
    )
    return figure


def _draw_panel(
    axes: Axes, run: Run, metric: str, label: str, width: float, top: float, bottom: bool
) -> None:
    positions = np.arange(len(run.steps), dtype=float)
    axes.set_xlim(-0.15, len(positions) - 0.85)
    axes.set_ylim(-0.03 * top, 1.03 * top)
    axes.set_yticks([0, top / 2, top], [f"{tick:g}" for tick in (0, top / 2, top)])
    axes.grid(axis="y")
    panels.shade_stages(axes, run, positions)
    panels.label_steps(axes, run.steps, positions, width)
    axes.tick_params(labelbottom=bottom)
    if bottom:
        axes.set_xlabel("training steps")
    if metric == "gamma" and not _is_known(run, metric):
        axes.text(
            0.5, 0.5, "no reference model", transform=axes.transAxes, ha="center", va="center",
            fontstyle="italic", color=GREY,
        )  # fmt: skip
        return
    panels.draw_floor(axes, run, metric, positions, [label])
    panels.draw_line(axes, run, label, metric, positions)
    panels.draw_other_reading(axes, run, label, metric, positions)
    chance = run.series(label, f"{metric}_chance")[0]
    axes.plot(positions, chance, gid=f"{metric}_chance:{label}", zorder=3.5, **CHANCE)


def _top(runs: Sequence[Run], metric: str, label: str) -> float:
    """The end of the scale of a row: a quarter, a half, or one, whichever holds all that is drawn."""
    drawn = [
        run.series(label, name)
        for run in runs
        for name in (
            metric,
            f"{metric}_chance",
            f"{metric}_churn_floor",
            f"{metric}_{run.other_reading}",
        )
    ]
    largest = np.nan_to_num(drawn).max()
    return next(end for end in (0.25, 0.5, 1.0) if largest <= end or end == 1.0)


def _is_known(run: Run, metric: str) -> bool:
    return any(np.isfinite(run.series(label, metric)[0]).any() for label in CLASSES)
