"""Figure 2: how the three classes of interactions evolve along the checkpoints.

After figure 2 of arXiv 2605.17967, on a grid: a row a class, a column a checkpoint.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend_handler import HandlerTuple
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from sft_interactions.analysis.runs import FEWEST_TO_CHOOSE, Run
from sft_interactions.figures import panels
from sft_interactions.figures.logical_model import size_within
from sft_interactions.figures.style import (
    CLASSES,
    DENOISING,
    GREY,
    LARGE,
    MEDIUM,
    OVERFITTING,
    SMALL,
    TEXT_WIDTH,
    TRAINING_LOSS,
    VALIDATION_LOSS,
    plain_style,
)

# All lengths in inches.
HEADER, FOOTER = 0.4, 0.38
BLOCK = 4.14
ROW, ROW_GAP = 0.64, 0.09
ROWS_TOP = 0.37  # from the top of a block to its first row
COUNTS_TOP, COUNTS = 2.95, 0.78
LOSSES_GAP, LOSSES = 0.12, 0.52  # under the counts, where the run's losses are known
NARROW = 0.5  # width of a histogram below which its labels shrink
LEFT, RIGHT = 0.78, 0.06
TICK_GAP = 0.30  # between the panel at t = 0 and the others, which share a scale
PANEL_GAP = 0.06
TOTALS_GAP, TOTALS = 0.44, 1.05
# Column of the ``training`` table to how its line looks.
LOSS_LINES: dict[str, dict[str, Any]] = {
    "train_loss": {"label": "training loss", "color": TRAINING_LOSS, "linewidth": 0.7},
    "validation_loss": {
        "label": "validation loss",
        "color": VALIDATION_LOSS,
        "linewidth": 1.0,
        "marker": "o",
        "markersize": 3,
    },
}


@plain_style()
def draw(runs: Sequence[Run], *, level: float) -> Figure:
    """Draw figure 2, one block a run.

    Args:
        runs: at least one.
        level: confidence level of the intervals in the metrics.
    """
    blocks = [BLOCK + (0 if run.training is None else LOSSES_GAP + LOSSES) for run in runs]
    height = HEADER + sum(blocks) + FOOTER
    figure = Figure(figsize=(TEXT_WIDTH, height))
    for index, run in enumerate(runs):
        _Block(figure, run, top=HEADER + sum(blocks[:index])).draw()
    entries = _legend_entries(level, any(run.has_churn_floor for run in runs))
    if name := panels.other_reading_name(runs):
        entries[name] = panels.other_reading_handle(name)
    figure.legend(  # type: ignore[call-overload]  # the stubs know no handles of several artists
        entries.values(),
        entries.keys(),
        handler_map={tuple: HandlerTuple(ndivide=None, pad=0.3)},
        loc="upper center",
        bbox_to_anchor=(0.5, 1 - 0.02 / height),
        ncols=3,
        columnspacing=1.2,
        handlelength=3.2,
        handletextpad=0.5,
        borderpad=0,
    )
    lines = [
        f"{panels.means_name(runs)}. In each row the panels after t = 0 share one scale; the panel at "
        "t = 0 has its own. The three panels of total",
        "strength share one scale. Checkpoints are evenly spaced, whatever their steps.",
    ]
    more = [panels.LOGARITHMIC_NOTE] * panels.is_logarithmic(figure)
    if any(run.overfits_from is not None for run in runs):
        more.append("Overfitting: from the step after which the validation loss rises.")
    lines.append(" ".join(more))
    figure.text(
        0.5,
        0.05 / height,
        "\n".join(filter(None, lines)),
        ha="center",
        va="bottom",
        fontsize=SMALL,
        color=GREY,
    )
    return figure


class _Block:
    """The panels of one run."""

    def __init__(self, figure: Figure, run: Run, top: float) -> None:
        self.figure, self.run, self.top = figure, run, top
        n = len(run.steps)
        gaps = TICK_GAP + PANEL_GAP * (n - 2)
        self.totals_left = TEXT_WIDTH - RIGHT - TOTALS
        self.width = (self.totals_left - TOTALS_GAP - LEFT - gaps) / n
        later = LEFT + self.width + TICK_GAP + np.arange(n - 1) * (self.width + PANEL_GAP)
        self.lefts = np.concatenate([[LEFT], later])

    def draw(self) -> None:
        size = size_within(self.run.label, TEXT_WIDTH - 2 * 0.06, LARGE)
        self._text(0.06, 0.02, self.run.label, fontsize=size, fontweight="bold", va="top")
        for left, step in zip(self.lefts, self.run.steps, strict=True):
            centre = left + self.width / 2
            size = SMALL if self.width < NARROW else MEDIUM
            self._text(
                centre, ROWS_TOP - 0.04, f"t = {step}", ha="center", va="bottom", fontsize=size
            )
        centre = self.totals_left + TOTALS / 2
        self._text(centre, ROWS_TOP - 0.04, "Total strength", ha="center", va="bottom")
        for row, label in enumerate(CLASSES):
            self._draw_row(label, ROWS_TOP + row * (ROW + ROW_GAP), bottom=row == len(CLASSES) - 1)
        self._draw_counts()
        if self.run.training is not None:
            self._draw_losses(self.run.training)
        self._write_boundary()

    def _draw_row(self, label: str, top: float, bottom: bool) -> None:
        style = CLASSES[label]
        middle = top + ROW / 2
        self._text(
            0.14,
            middle,
            style.name.replace(" ", "\n"),
            rotation=90,
            ha="center",
            va="center",
            color=style.text,
            fontweight="bold",
            linespacing=1.0,
        )
        self._text(
            0.37,
            middle,
            "strength\n(log-odds)",
            rotation=90,
            ha="center",
            va="center",
            fontsize=SMALL,
            linespacing=1.0,
        )
        positive = self.run.by_order(label, "strength_positive")
        negative = self.run.by_order(label, "strength_negative")
        shared: list[Axes] = []
        for index, left in enumerate(self.lefts):
            if np.isnan(positive[index]).all():
                self._text(
                    left + self.width / 2,
                    middle,
                    f"not\napplicable\nat t = {self.run.steps[index]}",
                    ha="center",
                    va="center",
                    fontsize=SMALL,
                    fontstyle="italic",
                    color=GREY,
                )
                continue
            axes = self._axes(left, top, self.width, ROW, f"strength:{label}:{index}")
            self._draw_histogram(axes, label, positive[index], negative[index])
            # At t = 0 only preserved has a panel, so its orders stand under it.
            axes.tick_params(labelbottom=bottom or index == 0, labelleft=index < 2)
            if bottom:
                axes.set_xlabel("order k", fontsize=SMALL, labelpad=1)
            if index:
                shared.append(axes)
        if shared:
            _share_scale(shared, positive[1:], negative[1:])
        self._draw_totals(label, top, bottom)

    def _draw_histogram(
        self, axes: Axes, label: str, positive: NDArray[np.float64], negative: NDArray[np.float64]
    ) -> None:
        style, orders = CLASSES[label], self.run.orders
        bar: dict[str, Any] = {"width": 0.82, "edgecolor": style.color, "linewidth": 0.3}
        axes.bar(orders, positive, color=style.color, **bar)
        axes.bar(orders, negative, color=style.light, **bar)
        axes.axhline(0, color="black", linewidth=0.5)
        axes.set_xlim(0, orders[-1] + 1)
        axes.set_xticks([1, (1 + orders[-1]) // 2, orders[-1]][: 2 if self.width < NARROW else 3])
        _share_scale([axes], positive, negative)
        if not positive.any() and not negative.any():
            axes.text(
                0.5, 0.75, "none", transform=axes.transAxes, ha="center", va="center", color=GREY
            )

    def _draw_totals(self, label: str, top: float, bottom: bool) -> None:
        axes = self._axes(self.totals_left, top, TOTALS, ROW, f"total:{label}")
        style, positions = CLASSES[label], np.arange(len(self.run.steps), dtype=float)
        value, low, high = self.run.series(label, "strength_total")
        positive = self.run.series(label, "strength_positive")[0]
        bar: dict[str, Any] = {"width": 0.72, "edgecolor": style.color, "linewidth": 0.3}
        axes.bar(positions, positive, color=style.color, **bar)
        axes.bar(positions, value - positive, bottom=positive, color=style.light, **bar)
        axes.vlines(positions, low, high, **panels.INTERVAL)
        axes.set_xlim(-0.6, len(positions) - 0.4)
        tops = np.array([self.run.series(c, "strength_total")[[0, 2]] for c in CLASSES])
        usual = panels.find_usual(np.nan_to_num(tops[:, 0]).max(axis=0))
        axes.yaxis.set_major_locator(MaxNLocator(3))
        panels.set_scale([axes], 0.0, float(np.nanmax(tops)) or 1.0, usual)
        panels.label_steps(axes, self.run.steps, positions, TOTALS)
        axes.tick_params(axis="x", length=0, labelbottom=bottom)
        if bottom:
            axes.set_xlabel("training steps", fontsize=SMALL, labelpad=1)

    def _draw_counts(self) -> None:
        width = self.lefts[-1] + self.width - LEFT
        axes = self._axes(LEFT, COUNTS_TOP, width, COUNTS, "counts")
        # A checkpoint lies under the middle of its column of histograms.
        positions = self.lefts - LEFT + self.width / 2
        axes.set_xlim(0, width)
        panels.shade_stages(axes, self.run, positions)
        panels.draw_floor(axes, self.run, "count", positions)
        for label in CLASSES:
            panels.draw_line(axes, self.run, label, "count", positions)
            panels.draw_other_reading(axes, self.run, label, "count", positions)
        tops = [self.run.series(label, "count")[[0, 2]] for label in CLASSES]
        if other := self.run.other_reading:
            tops += [self.run.series(label, f"count_{other}")[[0, 0]] for label in CLASSES]
        axes.set_ylim(0, _headroom(np.nanmax(tops)))
        axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.grid(axis="y")
        panels.label_steps(axes, self.run.steps, positions, width)
        if self.run.training is None:
            axes.set_xlabel("training steps", fontsize=SMALL, labelpad=1)
        else:
            axes.tick_params(axis="x", labelbottom=False)
        middle = COUNTS_TOP + COUNTS / 2
        self._text(
            0.22,
            middle,
            "Number of\ninteractions",
            rotation=90,
            ha="center",
            va="center",
            linespacing=1.0,
        )
        name: dict[str, Any] = {"va": "bottom", "fontweight": "bold"}
        start, end = LEFT + positions[0], LEFT + positions[-1]
        above = COUNTS_TOP - 0.03
        if self.run.boundary > 0:
            self._text(start, above, "Denoising stage", ha="left", color=DENOISING[1], **name)
        if self.run.overfits_from is not None:
            self._text(end, above, "Overfitting", ha="right", color=OVERFITTING[1], **name)

    def _draw_losses(self, training: pl.DataFrame) -> None:
        """The losses of training and validation, and where the learning rate is at its peak."""
        top = COUNTS_TOP + COUNTS + LOSSES_GAP
        width = self.lefts[-1] + self.width - LEFT
        axes = self._axes(LEFT, top, width, LOSSES, "losses")
        positions = self.lefts - LEFT + self.width / 2
        axes.set_xlim(0, width)
        panels.shade_stages(axes, self.run, positions)
        shown = training.filter(pl.col("step") <= self.run.steps[-1])
        for column, style in LOSS_LINES.items():
            known = shown.drop_nulls(column)
            places = np.interp(known["step"], self.run.steps, positions)
            axes.plot(places, known[column], gid=style["label"], clip_on=False, **style)
        losses = shown.select(*LOSS_LINES).to_numpy()
        axes.set_ylim(0, _headroom(float(np.nanmax(losses))))
        peak = _peak_of_learning_rate(training)
        if peak is not None and peak <= self.run.steps[-1]:
            place = float(np.interp(peak, self.run.steps, positions))
            axes.axvline(place, color="black", linestyle=(0, (1, 1)), linewidth=0.6, gid="warm-up")
            axes.text(
                place + 0.03,
                axes.get_ylim()[1],
                "warm-up ends",
                va="top",
                fontsize=SMALL,
                color=GREY,
            )
        axes.yaxis.set_major_locator(MaxNLocator(3))
        axes.grid(axis="y")
        panels.label_steps(axes, self.run.steps, positions, width)
        axes.set_xlabel("training steps", fontsize=SMALL, labelpad=1)
        middle = top + LOSSES / 2
        self._text(0.22, middle, "Loss\n(nats)", rotation=90, ha="center", va="center")
        axes.legend(
            loc="center left",
            bbox_to_anchor=(1.02, 0.5),
            fontsize=SMALL,
            handlelength=1.8,
            borderpad=0,
        )

    def _write_boundary(self) -> None:
        stages = self.run.stages
        interval = (
            "(no interval)"
            if stages["ci_low_step"] is None
            else f"(interval: {stages['ci_low_step']} to {stages['ci_high_step']})"
        )
        evidence = (
            f"{interval}\n\n"
            f"“Best checkpoint”: step {stages['best_checkpoint_step']}\n"
            "(up to there interactions\nemerge at one pace)"
        )
        if len(self.run.steps) < FEWEST_TO_CHOOSE:
            evidence = f"(of {len(self.run.steps)} checkpoints the\nonly one at which it can)"
        self._text(
            self.totals_left - 0.26,
            COUNTS_TOP + COUNTS / 2,
            f"Denoising stage ends\nat step {stages['boundary_step']}\n{evidence}\n\n"
            f"{panels.samples_name([self.run.n_samples])}",
            va="center",
            fontsize=SMALL,
            linespacing=1.3,
        )

    def _axes(self, left: float, top: float, width: float, height: float, label: str) -> Axes:
        whole = self.figure.get_figheight()
        bottom = whole - self.top - top - height
        box = (left / TEXT_WIDTH, bottom / whole, width / TEXT_WIDTH, height / whole)
        return self.figure.add_axes(box, label=f"{self.run.label}:{label}")

    def _text(self, left: float, top: float, text: str, **style: Any) -> None:
        whole = self.figure.get_figheight()
        style = {"fontsize": MEDIUM, **style}
        self.figure.text(left / TEXT_WIDTH, 1 - (self.top + top) / whole, text, **style)


def _peak_of_learning_rate(training: pl.DataFrame) -> int | None:
    """The step at which a warm-up ends; None without one."""
    taken = training.sort("step").filter(pl.col("step") > 0)
    if taken.is_empty():
        return None
    peak = int(taken["step"][int(taken["learning_rate"].arg_max() or 0)])
    return peak if peak > taken["step"][0] else None


def _headroom(top: float) -> float:
    return 1.08 * top if top > 0 else 1.0


def _share_scale(
    group: Sequence[Axes], positive: NDArray[np.float64], negative: NDArray[np.float64]
) -> None:
    """One scale for panels of checkpoints, whose strengths are (checkpoints, orders)."""
    sizes = np.fmax(positive, -negative)
    usual = panels.find_usual(np.nan_to_num(sizes).max(axis=1)) if sizes.ndim > 1 else None
    for axes in group:
        axes.yaxis.set_major_locator(MaxNLocator(3))
    top, bottom = float(np.nanmax(positive)), float(np.nanmin(negative))
    panels.set_scale(group, bottom, top if top or bottom else 1.0, usual)


def _legend_entries(level: float, has_floor: bool) -> dict[str, Artist | tuple[Artist, ...]]:
    entries: dict[str, Artist | tuple[Artist, ...]] = {}
    for style in CLASSES.values():
        patch: dict[str, Any] = {"edgecolor": style.color, "linewidth": 0.3}
        entries[f"{style.name} (+, −)"] = (
            Patch(facecolor=style.color, **patch),
            Patch(facecolor=style.light, **patch),
            Line2D([], [], color=style.color, marker=style.marker),
        )
    entries[panels.interval_name(level)] = (
        panels.band_handle(level),
        panels.bar_handle(level),
    )
    if has_floor:
        entries[panels.FLOOR_NAME] = panels.floor_handle()
    return entries
