"""Which findings survive which choice: verdicts by choice, finding and run."""

from collections.abc import Mapping

import polars as pl
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from sft_interactions.analysis.verdicts import determined
from sft_interactions.figures import panels
from sft_interactions.figures.logical_model import text_width
from sft_interactions.figures.style import (
    GREY,
    LARGE,
    MEDIUM,
    SMALL,
    TEXT_WIDTH,
    VERDICTS,
    plain_style,
)

# Finding to what it claims.
FINDINGS = {
    1: "few\nemerge\nearly",
    2: "many\nemerge\nlate",
    3: "most are\nremoved\nearly",
    4: "removed\nones are\nnoise",
    5: "preserved\nones\ncarry",
}
# Inches.
LEFT, RIGHT, TOP, BOTTOM = 1.85, 0.1, 0.95, 0.45
ROW = 0.19
GAP = 0.25


@plain_style()
def draw(runs: Mapping[str, pl.DataFrame], *, level: float) -> Figure:
    """Draw the matrix of verdicts.

    Args:
        runs: label to rows of the run's ``sensitivity`` table.
        level: confidence level of the intervals behind the verdicts.
    """
    rows = max(frame["choice"].n_unique() for frame in runs.values())
    height = TOP + ROW * rows + BOTTOM
    figure = Figure(figsize=(TEXT_WIDTH, height))
    width = (TEXT_WIDTH - LEFT - RIGHT + GAP) / len(runs) - GAP
    in_columns = all(
        text_width(line, SMALL) <= width / len(FINDINGS) - 0.03
        for name in FINDINGS.values()
        for line in name.splitlines()
    )
    for column, (label, frame) in enumerate(runs.items()):
        left = LEFT + column * (width + GAP)
        box = (left / TEXT_WIDTH, BOTTOM / height, width / TEXT_WIDTH, ROW * rows / height)
        _draw_run(figure, box, label, frame, rows, width, column == 0, in_columns)
    handles = [
        Patch(facecolor=area, label=f"{mark} {name}") for name, (area, _, mark) in VERDICTS.items()
    ]
    figure.legend(handles=handles, loc="upper center", ncols=3, borderpad=0.1)
    said = [f"In a cell: supported parts / all; {panels.interval_name(level)}s."]
    if not in_columns:
        names = "; ".join(f"{one}: {' '.join(name.split())}" for one, name in FINDINGS.items())
        said.append(f"{names}.")
    if any(answer is False for frame in runs.values() for answer in determined(frame).values()):
        said.append(
            "* The verdict changes with tie-break or reading, among answers that fit the data equally well."
        )
    figure.text(
        0.5,
        0.05 / height,
        "\n".join(said),
        ha="center",
        fontsize=SMALL,
        color=GREY,
    )
    return figure


def _draw_run(
    figure: Figure,
    box: tuple[float, float, float, float],
    label: str,
    frame: pl.DataFrame,
    rows: int,
    width: float,
    named: bool,
    in_columns: bool,
) -> None:
    axes = figure.add_axes(box, label=label)
    names = frame.sort("position")["choice"].unique(maintain_order=True).to_list()
    findings = frame["finding"].unique().sort().to_list()
    for row in frame.iter_rows(named=True):
        x, y = findings.index(row["finding"]), names.index(row["choice"])
        area, ink, mark = VERDICTS[row["verdict"]]
        gid = f"{row['choice']}:{row['finding']}:{row['verdict']}"
        axes.add_patch(
            Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor=area, edgecolor="white", gid=gid)
        )
        text = f"{mark} {row['parts_supported']}/{row['parts']}"
        axes.text(x, y, text, ha="center", va="center", color=ink, fontsize=SMALL)
    axes.axhline(0.5, color="black", linewidth=0.8)  # under the study's own choice
    axes.set_xlim(-0.5, len(findings) - 0.5)
    axes.set_ylim(rows - 0.5, -0.5)
    answers = determined(frame)
    marked = [f"{one}*" if answers[one] is False else str(one) for one in findings]
    if in_columns:
        marked = [f"{mark}\n{FINDINGS[one]}" for mark, one in zip(marked, findings, strict=True)]
    axes.set_xticks(range(len(findings)), marked, fontsize=SMALL, linespacing=1.0)
    axes.xaxis.tick_top()
    for name in axes.get_xticklabels():
        name.set_verticalalignment("baseline")
    # Runs without a reference model have fewer choices; the others' names then stand beside them.
    axes.set_yticks(range(len(names)), names, fontsize=MEDIUM)
    axes.tick_params(length=0, labelleft=named)
    letters = int(width / (0.65 * LARGE / 72))
    axes.set_title(panels.wrap(label, letters), fontsize=LARGE, fontweight="bold", linespacing=1.0)
    for spine in axes.spines.values():
        spine.set_visible(False)
