"""Colours, fonts and sizes of all figures, and how they are saved."""

from collections.abc import Iterable, Iterator
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
    """How a class of interactions is drawn, as in the paper's figures 2 and 3."""

    name: str
    line: str
    positive: str
    negative: str
    marker: str


# The darknesses differ as well as the hues, so that the classes can be told apart in greyscale.
CLASSES = {
    "removed": ClassStyle("Removed", "#3f87e5", "#1d5aa8", "#93bdea", "D"),
    "preserved": ClassStyle("Preserved", "#bd2622", "#b3231f", "#f0a19c", "s"),
    "emerged": ClassStyle("Newly emerged", "#ee8a1d", "#e08a00", "#fcd79a", "^"),
}
DENOISING = ("#edf6e3", "#3f7a1c")  # area, text
OVERFITTING = ("#f1eefa", "#5b47a0")
GREY = "#6b6b6b"
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


def save(figure: Figure, paths: Iterable[str | Path]) -> None:
    """Write a figure to every path, whole or not at all, in the format of its suffix.

    The same figure always gives the same bytes.
    """
    for path in map(Path, paths):
        with plain_style(), tables.replacing(path) as temporary:
            figure.savefig(temporary, dpi=DPI, metadata=UNDATED.get(path.suffix))
