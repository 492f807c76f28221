"""Figure 5: faithfulness, the logical model against the LLM on every masking.

After figure 5 of arXiv 2605.17967.
"""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from sft_interactions.analysis.faithfulness import Faithfulness
from sft_interactions.figures import panels
from sft_interactions.figures.style import GREY, LOG_ODDS, plain_style

ROWS = ("Log-odds of\none prompt's target", "Share of\nall maskings")
LIMIT, BINS = 0.25, 51


@plain_style()
def draw(runs: Sequence[Faithfulness], *, noise_ratio: float | None) -> Figure:
    """Draw figure 5, one column a run.

    Args:
        noise_ratio: ζ, the bound of |φ − v| / |v(N) − v(∅)| with all interactions; None where it is the
            share of something else (noise scale), so that no bound can be drawn.
    """
    figure, grid, _ = panels.run_columns([run.label for run in runs], ROWS, row_height=1.3)
    limit = max(LIMIT, 1.25 * (noise_ratio or 0.0))
    tallest = max(
        _draw_histogram(grid[1, column], run, limit, noise_ratio) for column, run in enumerate(runs)
    )
    for column, run in enumerate(runs):
        _draw_sample(grid[0, column], run)
        grid[1, column].set_ylim(0, 1.05 * tallest)
        grid[1, column].tick_params(labelleft=column == 0)
    names = {
        "llm": "LLM, v(S)",
        "logical": "φ(S), all interactions",
        "salient": "φ(S), salient ones",
    }
    handles = [Line2D([], [], color=LOG_ODDS[key], label=name) for key, name in names.items()]
    if noise_ratio is not None:
        bound = f"noise bound ζ = {noise_ratio:g}"
        handles.append(Line2D([], [], color=GREY, linestyle="--", linewidth=0.8, label=bound))
    n_players = runs[0].log_odds.llm.shape[1].bit_length() - 1
    panels.add_legend_and_note(
        figure,
        [handles],
        f"{n_players} players, {panels.samples_name(run.n_samples for run in runs)}. "
        "Top: the maskings S of one prompt, sorted by v(S). Bottom: all maskings of all samples; one "
        "scale; what lies beyond the axis is counted in its end bins.",
    )
    return figure


def _draw_sample(axes: Axes, run: Faithfulness) -> None:
    row = list(run.log_odds.samples).index(run.shown)
    order = np.argsort(run.log_odds.llm[row], kind="stable")
    for name, values, width in (
        ("logical", run.log_odds.logical, 0.6),
        ("salient", run.log_odds.salient, 0.4),
        ("llm", run.log_odds.llm, 1.0),
    ):
        axes.plot(values[row][order], color=LOG_ODDS[name], linewidth=width, gid=name)
    axes.set_xlim(0, 1.03 * len(order))
    axes.set_xlabel(f"maskings S by v(S), t = {run.step}")


def _draw_histogram(
    axes: Axes, run: Faithfulness, limit: float, noise_ratio: float | None
) -> float:
    """Draw the errors and return the height of the tallest bin."""
    edges = np.linspace(-limit, limit, BINS + 1)
    tallest = 0.0
    for name, phi, style in (
        ("logical", run.log_odds.logical, {"fill": True, "alpha": 0.45}),
        ("salient", run.log_odds.salient, {"fill": False}),
    ):
        errors = run.errors(phi).clip(-limit, limit)
        shares = np.histogram(errors, edges)[0] / max(errors.size, 1)
        axes.stairs(shares, edges, color=LOG_ODDS[name], linewidth=1.0, **style)
        tallest = max(tallest, float(shares.max()))
    for bound in () if noise_ratio is None else (-noise_ratio, noise_ratio):
        axes.axvline(bound, color=GREY, linestyle="--", linewidth=0.8, zorder=0.5)
    axes.set_xlim(-limit, limit)
    axes.set_xlabel("(φ(S) − v(S)) / |v(N) − v(∅)|")
    return tallest
