"""Colours, fonts and sizes of all figures, and how they are saved (docs/figures.md).

A colour has one meaning in all figures.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.typing import RcKeyType

from sft_interactions import tables

TEXT_WIDTH = 7.0  # inches
COLUMN_WIDTH = 3.5
DPI = 300


@dataclass(frozen=True)
class ClassStyle:
    """How a class of interactions is drawn, with the hues of the paper's figures 2 and 3.

    Attributes:
        name: in legends.
        color: of lines, and of bars of positive effects.
        light: of bars of negative effects, and of nothing else.
        text: of words, dark enough to be read on white.
        marker: of lines.
    """

    name: str
    color: str
    light: str
    text: str
    marker: str


# The darknesses differ as well as the hues (L* 30, 49, 69; light ones 66, 80, 90), so that the classes can
# be told apart in grey print and by colour-blind readers.
CLASSES = {
    "removed": ClassStyle("Removed", "#3475cc", "#a9c8f0", "#2560b0", "D"),
    "preserved": ClassStyle("Preserved", "#8f1519", "#d98a86", "#8f1519", "s"),
    "emerged": ClassStyle("Newly emerged", "#e39a1f", "#fbe0ad", "#935700", "^"),
}
DENOISING = ("#edf6e3", "#3f7a1c")  # area, text
OVERFITTING = ("#e4ddf6", "#5b47a0")
GREY = "#6b6b6b"
# Effects of interactions without a class, in ``explain(...).plot()``.
POSITIVE, NEGATIVE = "#4a4a4a", "#c9c9c9"
# Verdict to area, ink and mark.
VERDICTS = {
    "supported": ("#0f6e63", "white", "✓"),
    "inconclusive": ("#e3e3e3", "black", "?"),
    "contradicted": ("#c27ba0", "black", "✗"),
}
# Log-odds of the LLM, and of its logical model with all interactions and with the salient ones.
LOG_ODDS = {"llm": "black", "logical": "#a8b400", "salient": "#7a4a21"}
TRAINING_LOSS, VALIDATION_LOSS = "#9a9a9a", "black"
# Frame of an interaction that another logical model has too; those that it has not are grey.
SHARED = "black"
# Of an interval against the threshold of a claim, with the hue of what is supported.
CLAIMED, INTERVAL = "#8fc7bf", "#0f8a7b"
LOGARITHMIC = "#efefef"  # behind the part of a scale that is logarithmic
PLAYER = "#e4e4e4"  # behind words that are players
SMALL = 6.0
MEDIUM = 7.0
LARGE = 8.0

RC: dict[RcKeyType, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib: the same picture on every machine
    "font.size": MEDIUM,
    # Texts come from users: a dollar sign in a label is not mathematics.
    "text.parse_math": False,
    "axes.titlesize": LARGE,
    "axes.labelsize": MEDIUM,
    "xtick.labelsize": SMALL,
    "ytick.labelsize": SMALL,
    "legend.fontsize": MEDIUM,
    "legend.frameon": False,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.0,
    "ytick.major.size": 2.0,
    "xtick.major.pad": 1.5,
    "ytick.major.pad": 1.5,
    "axes.labelpad": 2.0,
    "grid.color": "#d0d0d0",
    "grid.linewidth": 0.4,
    "lines.linewidth": 1.2,
    "lines.markersize": 3.5,
    "hatch.linewidth": 0.4,
    "pdf.fonttype": 42,
    "ps.fonttype": 42,
    "svg.hashsalt": "sft-interactions",  # else the ids of its elements are drawn at random
}
UNDATED = {".pdf": {"CreationDate": None}, ".svg": {"Date": None}}


@contextmanager
def plain_style() -> Iterator[None]:
    """The style of all figures; what a user's own matplotlibrc says is left out."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(RC)
        yield


def save(
    figure: Figure,
    paths: Iterable[str | Path],
    *,
    results: str | Path | None = None,
    made_of: Mapping[str, str] | None = None,
) -> None:
    """Write a figure to every path, whole or not at all, in the format of its suffix.

    The same figure always gives the same bytes.

    Args:
        results: the results folder.
        made_of: place to digest of what the figure is made of; an SVG file then tells it.
    """
    for path in map(Path, paths):
        with plain_style(), tables.replacing(path) as temporary:
            figure.savefig(temporary, dpi=DPI, metadata=UNDATED.get(path.suffix))
            if made_of is not None and path.suffix == ".svg":
                place = None if results is None else tables.place_below(path, results)
                tables.note_in_picture(temporary, place, made_of)
