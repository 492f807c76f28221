"""Figure 6: sparsity, the sorted strengths of the interactions of single samples.

After figure 6 of arXiv 2605.17967.
"""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullFormatter

from sft_interactions.analysis.sparsity import Sparsity
from sft_interactions.figures import panels
from sft_interactions.figures.style import GREY, plain_style

MOST_SAMPLES = 20
STRENGTH = "Strength |I|, relative\nto the largest"


@plain_style()
def draw(runs: Sequence[Sparsity], *, n_players: int, threshold: float | None) -> Figure:
    """Draw figure 6, one column a run.

    Args:
        threshold: the salience threshold τ, where it is a share of the largest effect; else None.
    """
    figure, grid, _ = panels.run_columns([run.label for run in runs], [STRENGTH], row_height=1.7)
    for column, run in enumerate(runs):
        axes = grid[0, column]
        for strengths in run.strengths[:MOST_SAMPLES]:
            rank = np.arange(1, len(strengths) + 1)
            axes.plot(rank, strengths, color="black", alpha=0.35, linewidth=0.7, gid="sample")
        if threshold is not None:
            axes.axhline(threshold, color=GREY, linestyle="--", linewidth=0.8)
        axes.axvline(run.n_salient, color=GREY, linestyle=":", linewidth=1.0, gid="salient")
        axes.set_xscale("log")
        axes.set_xlim(1, run.n_possible)
        axes.set_ylim(0, 1.02)
        axes.tick_params(labelleft=column == 0)
        axes.set_xlabel(f"interactions by strength, t = {run.step}")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())  # the usual one writes mathematics
    handles = [
        Line2D([], [], color="black", alpha=0.5, linewidth=0.7, label="a sample"),
        Line2D([], [], color=GREY, linestyle=":", label="salient ones a sample (mean)"),
    ]
    if threshold is not None:
        label = f"salience threshold τ = {threshold:g}"
        handles.append(Line2D([], [], color=GREY, linestyle="--", linewidth=0.8, label=label))
    panels.add_legend_and_note(
        figure,
        [handles],
        f"{n_players} players; {panels.samples_name(map(_n_drawn, runs))} a run, AND and OR together; "
        f"the axis ends at the {runs[0].n_possible} interactions that are possible.",
    )
    return figure


def _n_drawn(run: Sparsity) -> int:
    return min(MOST_SAMPLES, len(run.strengths))
