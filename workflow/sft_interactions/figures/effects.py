"""The strongest interactions of one prompt as bars."""

import polars as pl
from matplotlib.figure import Figure

from sft_interactions.figures.style import (
    COLUMN_WIDTH,
    LARGE,
    NEGATIVE,
    POSITIVE,
    SMALL,
    plain_style,
)

ROW = 0.2  # inches


@plain_style()
def draw(interactions: pl.DataFrame, *, target: str) -> Figure:
    """Draw one bar an interaction, from top to bottom.

    Args:
        interactions: rows (kind, words, effect), effects in log-odds.
        target: the explained token, for the title.
    """
    labels = [
        f"{kind.upper()}: {', '.join(words)}" if len(words) > 1 else words[0]
        for kind, words in interactions.select("kind", "words").iter_rows()
    ]
    effects = interactions["effect"].to_list()
    figure = Figure(figsize=(1.6 * COLUMN_WIDTH, ROW * len(labels) + 0.7), layout="constrained")
    axes = figure.subplots()
    places = range(len(labels))
    axes.barh(places, effects, color=[POSITIVE if e > 0 else NEGATIVE for e in effects])
    # Words come from users' texts: a dollar sign in them is not mathematics.
    axes.set_yticks(places, labels, parse_math=False)
    axes.invert_yaxis()
    axes.axvline(0, color="black", linewidth=0.6)
    axes.set_xlabel("effect on the log-odds", fontsize=SMALL)
    axes.set_title(
        f"Strongest interactions behind “{target.strip()}”", fontsize=LARGE, parse_math=False
    )
    return figure
