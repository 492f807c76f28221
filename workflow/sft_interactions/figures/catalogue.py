"""All figures, in the order of the report. Rules, tests, profiles and CI read this list.

It draws nothing, so that it can be read without matplotlib.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class FigureEntry:
    """A figure.

    Attributes:
        subject: module of this package that draws it.
        title: what it shows, for messages.
        is_of_other_runs: whether it shows the runs that ``figures.main_runs`` does not name; a study
            without such runs has no such figure.
    """

    subject: str
    title: str
    is_of_other_runs: bool = False


# Name of its rule and its files to the figure. Numbers are those of arXiv 2605.17967.
FIGURES = {
    "fig1": FigureEntry(
        "interactions", "figure 1: interactions of one prompt, and of all by order"
    ),
    "fig2": FigureEntry("evolution", "figure 2: how the classes of interactions evolve"),
    "fig3": FigureEntry("quality", "figure 3: quality of the classes"),
    "fig4": FigureEntry("carriers", "figure 4: which interactions carry the prediction"),
    "fig5": FigureEntry("faithfulness", "figure 5: faithfulness"),
    "fig6": FigureEntry("sparsity", "figure 6: sparsity"),
    "fig7": FigureEntry("evolution", "figure 7: figure 2 for the remaining runs", True),
    "fig8": FigureEntry("quality", "figure 8: figure 3 for the remaining runs", True),
    "fig9": FigureEntry("comparison", "figure 9: logical models of one prompt, side by side"),
    "survival": FigureEntry("survival", "which findings survive which choice"),
}
FORMATS = ("pdf", "svg", "png")


def drawn(*, has_other_runs: bool) -> list[str]:
    """Names of the figures that have something to show.

    Args:
        has_other_runs: whether the study has runs that ``figures.main_runs`` does not name.
    """
    return [name for name, entry in FIGURES.items() if has_other_runs or not entry.is_of_other_runs]
