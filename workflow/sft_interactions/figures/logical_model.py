"""Boxes of interactions and prompts with their players marked, which figures 1 and 9 share.

Everything is placed in inches on a :class:`Canvas`, from its top left corner.
"""

import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import FancyBboxPatch
from matplotlib.textpath import TextToPath

from sft_interactions.analysis.samples import AnalysedPrompt, LogicalModel
from sft_interactions.figures.directions import base_direction, is_one_way, visual_order
from sft_interactions.figures.style import GREY, MEDIUM, PLAYER, SMALL

LINE = 0.145  # inches between lines of text
CHIP_STEP = 0.135
MOST_CHIPS = 6
LONGEST_PROMPT = 500  # characters
EDGE = 0.8


@cache
def text_width(text: str, size: float, bold: bool = False) -> float:
    """Width of a text in inches."""
    font = FontProperties(family="DejaVu Sans", size=size, weight="bold" if bold else "normal")
    return TextToPath().get_text_width_height_descent(text, font, ismath=False)[0] / 72


def size_within(text: str, width: float, size: float) -> float:
    """Size of a bold text, at most ``size``, at which it takes no more than so many inches."""
    return size * width / max(text_width(text, size, bold=True), width)


def shorten(text: str, width: float, size: float, *, bold: bool = False) -> str:
    """The text, cut with an ellipsis to so many inches."""
    if text_width(text, size, bold) <= width:
        return text
    while text and text_width(text + "…", size, bold) > width:
        text = text[:-1]
    return text + "…"


def shorten_apart(word: str, words: Sequence[str], width: float, size: float) -> str:
    """A word cut as by :func:`shorten`; where another one of ``words`` would look the same, to its end."""
    text = shorten(word, width, size)
    if all(other == word or shorten(other, width, size) != text for other in words):
        return text
    while word and text_width("…" + word, size) > width:
        word = word[1:]
    return "…" + word


def break_lines(text: str, width: float, size: float) -> list[str]:
    """A bold text in lines of so many inches; a word that is wider is cut with an ellipsis."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and text_width(longer, size, bold=True) <= width:
            lines[-1] = longer
        else:
            lines.append(shorten(word, width, size, bold=True))
    return lines


class Canvas:
    """A figure drawn in inches from its top left corner."""

    def __init__(self, figure: Figure) -> None:
        self.width, self.height = figure.get_size_inches()
        self.axes: Axes = figure.add_axes((0, 0, 1, 1), label="canvas")
        self.axes.set_xlim(0, self.width)
        self.axes.set_ylim(self.height, 0)
        self.axes.axis("off")

    def text(self, x: float, y: float, text: str, **style: Any) -> None:
        """Put a text whose vertical middle is at y; a dollar sign in it is not mathematics."""
        style = {"fontsize": MEDIUM, "va": "center", "parse_math": False, **style}
        self.axes.text(x, y, text, **style)

    def box(self, x: float, y: float, width: float, height: float, **style: Any) -> None:
        """Draw a box with round corners."""
        shape = "round,pad=0,rounding_size=0.04"
        self.axes.add_patch(FancyBboxPatch((x, y), width, height, boxstyle=shape, **style))


Line = list[tuple[float, str, bool]]
Lines = list[Line]


def lay_out(prompt: AnalysedPrompt, width: float) -> Lines:
    """Break the user text into lines of so many inches.

    Of a long text only what lies between the first and the last player is kept. Lines with words that are
    written from right to left have them in that order.

    Returns:
        for each line its pieces: inches from the left, text, whether it is a player.
    """
    lines: Lines = [[]]
    left = 0.0
    for text, is_player in _pieces(prompt, width):
        if left and left + text_width(text.rstrip(), MEDIUM) > width:
            lines.append([])
            left = 0.0
        if left or text.strip():
            lines[-1].append((left, text, is_player))
            left += text_width(text, MEDIUM)
    base = base_direction(prompt.text)
    return [_in_visual_order(line, base) for line in lines]


def _in_visual_order(line: Line, base: str) -> Line:
    if all(is_one_way(text) for _, text, _ in line):
        return line
    pieces = [
        (part, is_player)
        for _, text, is_player in line
        for part in (text.rstrip(" "), text[len(text.rstrip(" ")) :])
        if part
    ]
    left, ordered = 0.0, []
    for place in visual_order([text for text, _ in pieces], base):
        ordered.append((left, *pieces[place]))
        left += text_width(pieces[place][0], MEDIUM)
    return ordered


def draw_prompt(canvas: Canvas, lines: Lines, x: float, y: float) -> None:
    """Draw the lines of a prompt, its players on grey."""
    for number, line in enumerate(lines):
        middle = y + LINE * (number + 0.5)
        for left, text, is_player in line:
            if is_player:
                width = text_width(text, MEDIUM) + 0.03
                canvas.box(
                    x + left - 0.015, middle - 0.06, width, 0.12, facecolor=PLAYER, linewidth=0
                )
            canvas.text(x + left, middle, text)


def _pieces(prompt: AnalysedPrompt, width: float) -> list[tuple[str, bool]]:
    """Words of the prompt in order, each with whether it is a player; none is wider than ``width``.

    A player of many words may be several pieces, and a word that no line holds is cut with an ellipsis.
    """
    whole = len(prompt.text) <= LONGEST_PROMPT
    start, end = (0, len(prompt.text)) if whole else (prompt.spans[0][0], prompt.spans[-1][1])
    pieces, here = [("“" if whole else "“… ", False)], start
    for a, b in prompt.spans:
        pieces += [(word, False) for word in _words(prompt.text[here:a])]
        pieces.append((prompt.text[a:b], True))
        here = b
    pieces += [(word, False) for word in _words(prompt.text[here:end])]
    pieces.append(("”" if whole else " …”", False))
    return [(part, is_player) for text, is_player in pieces for part in _parts(text, width)]


def _parts(text: str, width: float) -> list[str]:
    """Parts of a text that a line of so many inches holds each."""
    if text_width(text.rstrip(), MEDIUM) <= width:
        return [text]
    parts = [""]
    for word in _words(text):
        fits = text_width((parts[-1] + word).rstrip(), MEDIUM) <= width
        parts = [*parts[:-1], parts[-1] + word] if fits or not parts[-1] else [*parts, word]
    return [shorten(part, width, MEDIUM) for part in parts]


def _words(text: str) -> list[str]:
    """Words, each with the blank that follows it; a leading blank stands alone."""
    return re.findall(r"\S+ ?|^ ", re.sub(r"\s+", " ", text))


def box_height(orders: list[int]) -> float:
    """Height in inches of boxes that hold interactions of these orders."""
    return 0.24 + CHIP_STEP * min(max(orders, default=1), MOST_CHIPS) + 0.04


def draw_interaction(
    canvas: Canvas,
    row: Mapping[str, Any],
    prompt: AnalysedPrompt,
    x: float,
    y: float,
    width: float,
    height: float,
    *,
    color: str,
    ink: str | None = None,
    edge: float = EDGE,
) -> None:
    """Draw one interaction as a box: kind and effect in log-odds on top, its words below.

    Args:
        color: of the frame, and of the text on top unless ``ink`` is given.
        ink: of the text on top.
        edge: width of the frame in points.
    """
    canvas.box(x, y, width, height, facecolor="white", edgecolor=color, linewidth=edge)
    head = f"{row['kind'].upper()}  {signed(row['effect'])}"
    canvas.text(x + width / 2, y + 0.1, head, ha="center", color=ink or color, fontweight="bold")
    canvas.axes.plot([x, x + width], [y + 0.19] * 2, color=color, linewidth=0.5)
    words = [word for k, word in enumerate(prompt.words) if row["pattern"] >> k & 1]
    if len(words) > MOST_CHIPS:
        words = [*words[: MOST_CHIPS - 1], f"+ {len(words) - MOST_CHIPS + 1} more"]
    for number, word in enumerate(words):
        middle = y + 0.2 + CHIP_STEP * (number + 0.5)
        text = shorten_apart(word, prompt.words, width - 0.14, SMALL)
        chip = text_width(text, SMALL) + 0.06
        canvas.box(x + (width - chip) / 2, middle - 0.05, chip, 0.1, facecolor=PLAYER, linewidth=0)
        canvas.text(x + width / 2, middle, text, fontsize=SMALL, ha="center")


def equation(model: LogicalModel, shown: pl.DataFrame) -> str:
    """How φ(N) is made up, in log-odds, when the interactions ``shown`` are drawn."""
    drawn = float(shown["effect"].sum())
    hidden = model.prediction - model.bias - drawn
    parts = f"{signed(model.bias)} (bias) {spaced(drawn)} (drawn) {spaced(hidden)} (all others)"
    return f"{parts} = {signed(model.prediction)}"


def signed(value: float) -> str:
    """Two decimals with a sign."""
    return f"{value:+.2f}".replace("-", "−")


def spaced(value: float) -> str:
    """As :func:`signed`, with a blank after the sign."""
    text = signed(value)
    return f"{text[0]} {text[1:]}"


def note(canvas: Canvas, y: float, text: str) -> None:
    """Small print across the figure."""
    canvas.text(canvas.width / 2, y, text, ha="center", va="top", fontsize=SMALL, color=GREY)
