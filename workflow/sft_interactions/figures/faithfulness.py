"""Figure 5: faithfulness, the logical model against the LLM on every masking.

After figure 5 of arXiv 2605.17967.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from sft_interactions.analysis.faithfulness import LogOdds, relative_errors
from sft_interactions.figures import panels
from sft_interactions.figures.style import GREY, RC

# None of the colours of the classes, of which this figure says nothing.
COLORS = {"llm": "black", "logical": "#009e73", "salient": "#9a5fb5"}
ROWS = ("Log-odds of\none prompt", "Share of\nall maskings")
LIMIT, BINS = 0.25, 51


@dataclass(frozen=True)
class Faithfulness:
    """A run at one checkpoint.

    Attributes:
        label: title of the run.
        step: the checkpoint.
        log_odds: those of the LLM and of its logical models.
        shown: id of the sample whose maskings are drawn one by one.
    """

    label: str
    step: int
    log_odds: LogOdds
    shown: str

    @property
    def n_samples(self) -> int:
        """Number of analysed samples."""
        return len(self.log_odds.samples)

    def errors(self, name: str) -> NDArray[np.float64]:
        """Relative errors of ``logical`` or ``salient`` on all maskings of all samples."""
        errors = relative_errors(getattr(self.log_odds, name), self.log_odds.llm).ravel()
        return errors[np.isfinite(errors)]


@matplotlib.rc_context(RC)
def draw(runs: Sequence[Faithfulness], *, noise_ratio: float) -> Figure:
    """Draw figure 5, one column a run.

    Args:
        noise_ratio: ζ, the bound of |φ − v| / |v(N) − v(∅)| with all interactions.
    """
    figure, grid, _ = panels.run_columns(runs, ROWS, row_height=1.3)
    limit = max(LIMIT, 1.25 * noise_ratio)
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
    handles = [Line2D([], [], color=COLORS[key], label=name) for key, name in names.items()]
    bound = f"noise bound ζ = {noise_ratio:g}"
    handles.append(Line2D([], [], color=GREY, linestyle="--", linewidth=0.8, label=bound))
    n_players = runs[0].log_odds.llm.shape[1].bit_length() - 1
    panels.add_legend_and_note(
        figure,
        [handles],
        f"{n_players} players, {panels.samples_name(runs)}. Top: the maskings S of one prompt, sorted "
        "by v(S). Bottom: all maskings of all samples; one scale; what lies beyond the axis is counted "
        "in its end bins.",
    )
    return figure


def _draw_sample(axes: Axes, run: Faithfulness) -> None:
    row = list(run.log_odds.samples).index(run.shown)
    order = np.argsort(run.log_odds.llm[row], kind="stable")
    for name, width in (("logical", 0.6), ("salient", 0.4), ("llm", 1.0)):
        drawn = getattr(run.log_odds, name)[row][order]
        axes.plot(drawn, color=COLORS[name], linewidth=width, gid=name)
    axes.set_xlim(0, 1.03 * len(order))
    axes.set_xlabel(f"maskings S by v(S), t = {run.step}")


def _draw_histogram(axes: Axes, run: Faithfulness, limit: float, noise_ratio: float) -> float:
    """Draw the errors and return the height of the tallest bin."""
    edges = np.linspace(-limit, limit, BINS + 1)
    tallest = 0.0
    for name, filled in (("logical", True), ("salient", False)):
        errors = run.errors(name).clip(-limit, limit)
        shares = np.histogram(errors, edges)[0] / max(errors.size, 1)
        style = {"fill": True, "alpha": 0.45} if filled else {"fill": False}
        axes.stairs(shares, edges, color=COLORS[name], linewidth=1.0, **style)
        tallest = max(tallest, shares.max())
    for bound in (-noise_ratio, noise_ratio):
        axes.axvline(bound, color=GREY, linestyle="--", linewidth=0.8, zorder=0.5)
    axes.set_xlim(-limit, limit)
    axes.set_xlabel("(φ(S) − v(S)) / |v(N) − v(∅)|")
    return tallest
