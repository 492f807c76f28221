"""Figure 9: the logical models of one prompt in two LLMs, side by side.

After figure 9 of arXiv 2605.17967.
"""

from collections.abc import Sequence

import polars as pl
from matplotlib.figure import Figure

from sft_interactions.analysis.samples import AnalysedPrompt, LogicalModel, find_shared
from sft_interactions.figures.logical_model import (
    EDGE,
    LINE,
    Canvas,
    box_height,
    break_lines,
    draw_interaction,
    draw_prompt,
    lay_out,
    note,
    signed,
)
from sft_interactions.figures.style import GREY, LARGE, SHARED, TEXT_WIDTH, plain_style

IN_A_ROW = 4  # interactions of a kind
# Inches.
MARGIN, GUTTER = 0.12, 0.24
PROMPT_LEFT = 0.6
BOX_GAP, ROW_GAP = 0.08, 0.1
HEAD, TITLE_LINE, NOTE = 0.46, 0.15, 0.36


@plain_style()
def draw(models: Sequence[LogicalModel], prompts: Sequence[AnalysedPrompt]) -> Figure:
    """Draw figure 9.

    Args:
        models: logical models of one prompt in two LLMs.
        prompts: the prompt as each of them reads it; their scored tokens may differ.
    """
    prompt = prompts[0]
    first = pl.int_range(pl.len()).over("kind") < IN_A_ROW
    shown = [model.interactions.filter(first) for model in models]
    heights = {
        kind: box_height(pl.concat(shown).filter(pl.col("kind") == kind)["order"].to_list())
        for kind in ("and", "or")
    }
    lines = lay_out(prompt, TEXT_WIDTH - 2 * MARGIN - PROMPT_LEFT)
    half = (TEXT_WIDTH - 2 * MARGIN - GUTTER) / 2
    titles = [break_lines(model.title, half, LARGE) for model in models]
    head = HEAD + TITLE_LINE * (max(map(len, titles)) - 1)
    top = 0.06 + LINE * (len(lines) + 1) + 0.12
    height = top + head + sum(heights.values()) + ROW_GAP + NOTE + 0.1
    figure = Figure(figsize=(TEXT_WIDTH, height))
    canvas = Canvas(figure)
    canvas.text(MARGIN, 0.06 + LINE / 2, "Prompt x", fontweight="bold")
    draw_prompt(canvas, lines, MARGIN + PROMPT_LEFT, 0.06)
    below = 0.06 + LINE * (len(lines) + 0.5)
    canvas.text(MARGIN, below, "Target", fontweight="bold")
    names = list(dict.fromkeys(prompt.scored_name for prompt in prompts))
    canvas.text(
        MARGIN + PROMPT_LEFT, below, " (left); ".join(names) + " (right)" * (len(names) > 1)
    )

    boxes_top = top + head - HEAD
    for number, model in enumerate(models):
        other = models[1 - number].interactions
        left = MARGIN + number * (half + GUTTER)
        for place, line in enumerate(titles[number]):
            y = top + 0.06 + TITLE_LINE * place
            canvas.text(left, y, line, fontsize=LARGE, fontweight="bold")
        _draw_half(canvas, model, shown[number], other, prompt, left, boxes_top, half, heights)
    middle = TEXT_WIDTH / 2
    canvas.axes.plot([middle, middle], [top, height - NOTE], color=GREY, linewidth=0.4)
    canvas_note = (
        f"The {IN_A_ROW} strongest salient AND interactions above, OR interactions below; effects in "
        "log-odds. AND: effect if all players are there; OR: if any is.\nBlack, thick frame: salient "
        "in the other one too, with the same kind and the same sign (generalizable). On grey are the "
        "players."
    )
    note(canvas, height - NOTE + 0.02, canvas_note)
    return figure


def _draw_half(
    canvas: Canvas,
    model: LogicalModel,
    shown: pl.DataFrame,
    other: pl.DataFrame,
    prompt: AnalysedPrompt,
    left: float,
    top: float,
    half: float,
    heights: dict[str, float],
) -> None:
    common = find_shared(model.interactions, other).sum()
    canvas.text(
        left,
        top + 0.24,
        f"v(N) = {signed(model.log_odds)}, φ(N) = {signed(model.prediction)}, bias "
        f"{signed(model.bias)}; {common} of {len(model.interactions)} salient shared",
    )
    width = (half + BOX_GAP) / IN_A_ROW - BOX_GAP
    y = top + HEAD - 0.08
    shown = shown.with_columns(find_shared(shown, other).alias("shared"))
    for kind, height in heights.items():
        rows = shown.filter(pl.col("kind") == kind)
        for index, row in enumerate(rows.iter_rows(named=True)):
            look = {"color": SHARED, "edge": 2 * EDGE} if row["shared"] else {"color": GREY}
            x = left + index * (width + BOX_GAP)
            draw_interaction(canvas, row, prompt, x, y, width, height, **look)
        if rows.is_empty():
            canvas.text(
                left + half / 2, y + height / 2, f"no salient {kind.upper()} interaction",
                ha="center", fontstyle="italic", color=GREY,
            )  # fmt: skip
        y += height + ROW_GAP
