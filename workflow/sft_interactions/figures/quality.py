"""Figure 3: quality of the three classes of interactions along the checkpoints.

After figure 3 of arXiv 2605.17967: generalizability (Eq. 9) and uncancelled effects (Eq. 10).
"""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from sft_interactions.analysis.runs import Run
from sft_interactions.figures import panels
from sft_interactions.figures.style import CLASSES, GREY, plain_style

ROWS = {
    "gamma": "Generalizable\ninteractions γ",
    "rho": "Uncancelled\neffects ρ",
}


@plain_style()
def draw(runs: Sequence[Run], *, level: float) -> Figure:
    """Draw figure 3, one column a run.

    Args:
        runs: may be empty; the figure then says so.
        level: confidence level of the intervals in the metrics.
    """
    if not runs:
        return panels.draw_no_runs()
    figure, grid, width = panels.run_columns(
        [run.label for run in runs], ROWS.values(), row_height=1.15
    )
    for column, run in enumerate(runs):
        for row, metric in enumerate(ROWS):
            _draw_panel(grid[row, column], run, metric, width, bottom=row == len(ROWS) - 1)
    chance = Line2D([], [], color=GREY, linestyle="--", linewidth=0.8, label="chance level")
    marks = [panels.band_handle(level), chance]
    if any(run.has_churn_floor for run in runs):
        marks.append(panels.floor_handle())
    if name := panels.other_reading_name(runs):
        marks.append(panels.other_reading_handle(name))
    panels.add_legend_and_note(
        figure,
        [[*panels.line_handles(), *panels.stage_handles()], marks],
        f"{panels.means_name(runs)}. Newly emerged and removed do not apply before "
        "SFT. Churn floor: what noise alone would give.",
    )
    return figure


def _draw_panel(axes: Axes, run: Run, metric: str, width: float, bottom: bool) -> None:
    positions = np.arange(len(run.steps), dtype=float)
    axes.set_xlim(-0.15, len(positions) - 0.85)
    axes.set_ylim(-0.03, 1.03)
    axes.set_yticks([0, 0.5, 1])
    axes.grid(axis="y")
    panels.shade_stages(axes, run, positions)
    panels.label_steps(axes, run.steps, positions, width)
    axes.tick_params(labelbottom=bottom)
    if bottom:
        axes.set_xlabel("training steps")
    known = [np.isfinite(run.series(label, metric)[0]).any() for label in CLASSES]
    if metric == "gamma" and not any(known):
        axes.text(
            0.5, 0.5, "no reference model", transform=axes.transAxes, ha="center", va="center",
            fontstyle="italic", color=GREY,
        )  # fmt: skip
        return
    panels.draw_floor(axes, run, metric, positions)
    for label, style in CLASSES.items():
        panels.draw_line(axes, run, label, metric, positions)
        panels.draw_other_reading(axes, run, label, metric, positions)
        axes.plot(
            positions,
            run.series(label, f"{metric}_chance")[0],
            color=style.line,
            linestyle="--",
            linewidth=0.8,
            gid=f"{metric}_chance:{label}",
        )
