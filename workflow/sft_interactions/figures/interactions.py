"""Figure 1: the idea, from real data.

After figure 1 of arXiv 2605.17967: the strongest interactions of one prompt as a logical model, and
the interactions of all samples by order at up to six checkpoints.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from sft_interactions.analysis.runs import Run
from sft_interactions.analysis.samples import AnalysedPrompt, LogicalModel
from sft_interactions.analysis.strengths import strengths_by_order
from sft_interactions.figures.logical_model import (
    EDGE,
    LINE,
    Canvas,
    box_height,
    draw_interaction,
    draw_prompt,
    equation,
    lay_out,
    note,
    shorten,
    signed,
    size_within,
    text_width,
)
from sft_interactions.figures.panels import LOGARITHMIC_NOTE, find_usual, samples_name, set_scale
from sft_interactions.figures.style import (
    CLASSES,
    DENOISING,
    GREY,
    LARGE,
    MEDIUM,
    OVERFITTING,
    SMALL,
    TEXT_WIDTH,
    plain_style,
)

SHOWN, OF_EACH_KIND = 7, 3
CHECKPOINTS = 6
# Inches.
MARGIN, LEFT = 0.12, 0.5
PROMPT_LEFT = 0.6
BOX_GAP = 0.08
PANEL, PANEL_GAP = 0.95, 0.1
LOWER = 2.05
# In the order in which the bars are stacked: class, name, hatch. As in figure 2 an interaction counts as
# preserved until it is removed.
GROUPS = {
    "kept": ("preserved", "Preserved to the last checkpoint", ""),
    "lost": ("preserved", "Preserved so far, removed later", "////////"),
    "emerged": ("emerged", "Newly emerged", ""),
}


@plain_style()
def draw(
    run: Run,
    dynamics: pl.DataFrame,
    model: LogicalModel,
    prompt: AnalysedPrompt,
) -> Figure:
    """Draw figure 1.

    Args:
        run: the run of both halves.
        dynamics: rows of its ``dynamics`` table.
        model: logical model of ``prompt`` at one of its checkpoints.
    """
    classes = dynamics.filter(
        pl.col("class") != "removed", sample_id=prompt.sample_id, step=model.step
    )
    shown = model.strongest(SHOWN, OF_EACH_KIND).join(
        classes.select("class", "kind", "pattern"), on=["kind", "pattern"], maintain_order="left"
    )
    boxes = box_height(shown["order"].to_list())
    lines = lay_out(prompt, TEXT_WIDTH - 2 * MARGIN - PROMPT_LEFT)
    equation_top = 0.28 + LINE * len(lines) + 0.1
    boxes_top = equation_top + 0.14
    lower_top = boxes_top + boxes + 0.5
    figure = Figure(figsize=(TEXT_WIDTH, lower_top + LOWER))
    canvas = Canvas(figure)

    size = size_within(model.title, TEXT_WIDTH - 2 * MARGIN, LARGE)
    canvas.text(MARGIN, 0.13, model.title, fontsize=size, fontweight="bold")
    canvas.text(MARGIN, 0.28 + LINE / 2, "Prompt x", fontweight="bold")
    draw_prompt(canvas, lines, MARGIN + PROMPT_LEFT, 0.28)
    found = f" v(N) = {signed(model.log_odds)}   ≈   logical model: φ(N) = {equation(model, shown)}"
    is_whole = prompt.scored == prompt.target
    about = "LLM: log-odds of the target " if is_whole else "LLM: log-odds of "
    room = TEXT_WIDTH - 2 * MARGIN - text_width(about + found, MEDIUM)
    canvas.text(MARGIN, equation_top, about + shorten(prompt.scored_name, room, MEDIUM) + found)
    width = (TEXT_WIDTH - 2 * MARGIN + BOX_GAP) / SHOWN - BOX_GAP
    for index, row in enumerate(shown.iter_rows(named=True)):
        x = MARGIN + index * (width + BOX_GAP)
        style = CLASSES[row["class"]]
        look: dict[str, Any] = {"color": style.color, "ink": style.text, "edge": 1.5 * EDGE}
        draw_interaction(canvas, row, prompt, x, boxes_top, width, boxes, **look)
    canvas.text(
        TEXT_WIDTH - MARGIN,
        boxes_top + boxes + 0.1,
        _name_shown(len(shown), len(model.interactions)),
        ha="right",
        fontstyle="italic",
        color=GREY,
    )
    _draw_evolution(figure, canvas, run, dynamics, lower_top)
    return figure


def choose_steps(steps: Sequence[int], boundary: int, most: int) -> list[int]:
    """At most so many checkpoints, with the first, the last and the end of the denoising stage.

    Args:
        boundary: index of the checkpoint that ends the denoising stage.
    """
    chosen = {0, boundary, len(steps) - 1}
    for index in np.linspace(0, len(steps) - 1, most).round().astype(int).tolist():
        if len(chosen) < most:
            chosen.add(index)
    return [steps[index] for index in sorted(chosen)]


def _name_shown(shown: int, all_of_them: int) -> str:
    if shown == all_of_them:
        return f"all {shown} salient interactions"
    return (
        f"{shown} of {all_of_them} salient interactions: the {OF_EACH_KIND} strongest AND and the "
        f"{OF_EACH_KIND} strongest OR, then the strongest others"
    )


def _draw_evolution(
    figure: Figure, canvas: Canvas, run: Run, dynamics: pl.DataFrame, top: float
) -> None:
    steps = choose_steps(run.steps, run.boundary, CHECKPOINTS)
    heights = strengths_by_order(dynamics, steps, run.orders, run.n_samples)
    width = (TEXT_WIDTH - LEFT - MARGIN - PANEL_GAP * (len(steps) - 1)) / len(steps)
    patches = [
        Patch(**_look(CLASSES[name].color, CLASSES[name].color, hatch), label=title)
        for name, title, hatch in GROUPS.values()
    ]
    figure.legend(
        handles=patches,
        loc="center",
        bbox_to_anchor=(0.5, 1 - (top - 0.12) / canvas.height),
        ncols=3,
        borderpad=0,
    )
    drawn: list[Axes] = []
    for index, step in enumerate(steps):
        left = LEFT + index * (width + PANEL_GAP)
        box = (
            left / TEXT_WIDTH,
            1 - (top + 0.17 + PANEL) / canvas.height,
            width / TEXT_WIDTH,
            PANEL / canvas.height,
        )
        axes = figure.add_axes(box, label=f"orders:{step}")
        drawn.append(axes)
        _draw_orders(axes, run.orders, {key: table[index] for key, table in heights.items()})
        axes.set_title("before SFT" if index == 0 else f"t = {step}", pad=2)
        axes.tick_params(labelleft=index == 0)
        if index == 0:
            axes.set_ylabel("strength (log-odds)")
    ends = [sum(heights[group, sign] for group in GROUPS) for sign in ("positive", "negative")]
    top_end, bottom_end = float(np.max(ends[0])), float(np.min(ends[1]))
    usual = find_usual(np.fmax(ends[0], -np.asarray(ends[1])).max(axis=1))
    set_scale(drawn, bottom_end, top_end if top_end or bottom_end else 1.0, usual)
    _draw_stages(canvas, steps, run, width, top + 0.17 + PANEL + 0.36)
    more = f" {LOGARITHMIC_NOTE}" if usual is not None else ""
    note(
        canvas,
        top + 0.17 + PANEL + 0.52,
        f"Bottom: sum of effects by order, positive above and negative below zero (light), means over "
        f"{samples_name([run.n_samples])}; one scale.\nBoxes: the numbers are effects in log-odds, colours "
        "as below; AND: effect if all players are there; OR: if any is.\n"
        f"On grey are the players; all other text is never masked.{more}",
    )


def _draw_orders(
    axes: Axes, orders: Sequence[int], heights: dict[tuple[str, str], NDArray[np.float64]]
) -> None:
    for sign in ("positive", "negative"):
        base = np.zeros(len(orders))
        for group, (name, _, hatch) in GROUPS.items():
            style = CLASSES[name]
            bars = heights[group, sign]
            fill = style.color if sign == "positive" else style.light
            axes.bar(orders, bars, 0.82, bottom=base, **_look(fill, style.color, hatch))
            base = base + bars
    axes.axhline(0, color="black", linewidth=0.5)
    axes.set_xlim(0, orders[-1] + 1)
    axes.set_xticks([1, (1 + orders[-1]) // 2, orders[-1]])
    axes.set_xlabel("order k", fontsize=SMALL, labelpad=1)
    axes.yaxis.set_major_locator(MaxNLocator(4))


def _look(fill: str, color: str, hatch: str) -> dict[str, Any]:
    """How a bar is filled: as a whole, or by hatching on white."""
    look: dict[str, Any] = {"facecolor": "white" if hatch else fill, "edgecolor": color}
    return {**look, "hatch": hatch, "linewidth": 0.3}


def _draw_stages(
    canvas: Canvas, steps: Sequence[int], run: Run, width: float, middle: float
) -> None:
    """Bars under the panels, from checkpoint to checkpoint."""
    centres = LEFT + width / 2 + np.arange(len(steps)) * (width + PANEL_GAP)
    marks = [(steps[0], run.steps[run.boundary], DENOISING, "Denoising stage")]
    if run.overfits_from is not None:
        marks.append((run.overfits_from, steps[-1], OVERFITTING, "Overfitting"))
    for first, last, (area, edge), name in marks:
        start, end = np.interp([first, last], steps, centres).tolist()
        if end > start:
            canvas.box(start, middle - 0.07, end - start, 0.14, facecolor=area, edgecolor=edge,
                       linewidth=0.4)  # fmt: skip
            canvas.text((start + end) / 2, middle, name, ha="center", color=edge, fontweight="bold")
