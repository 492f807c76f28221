"""An interval against the threshold of a claim, as small as a word."""

from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from sft_interactions.figures.style import CLAIMED, GREY, INTERVAL, plain_style

WIDTH, HEIGHT = 1.7, 0.2  # inches
# Share of the width that is left free on both sides of what is shown.
MARGIN = 0.12


@plain_style()
def draw(
    value: float | None,
    low: float | None,
    high: float | None,
    *,
    threshold: float,
    claims_more: bool,
) -> Figure:
    """Draw a value with its interval, the threshold as a line, and the claimed side of it as an area.

    Args:
        value: a point; None where it is undefined.
        low: end of its interval, like ``high``; None where there is none.
        threshold: of the claim, in the unit of ``value``.
        claims_more: whether the claim is that the value lies above the threshold.

    Returns:
        A picture without text and without a scale, which is its own in every picture.
    """
    shown = [number for number in (value, low, high) if number is not None]
    least, most = min([threshold, *shown]), max([threshold, *shown])
    margin = MARGIN * ((most - least) or 1)
    left, right = least - margin, most + margin
    figure = Figure(figsize=(WIDTH, HEIGHT))
    figure.patch.set_alpha(0)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.xaxis.set_major_locator(NullLocator())
    axes.set_xlim(left, right)
    axes.set_ylim(0, 1)
    claimed = (threshold, right) if claims_more else (left, threshold)
    axes.axvspan(*claimed, ymin=0.2, ymax=0.8, color=CLAIMED, alpha=0.5, linewidth=0)
    axes.axvline(threshold, color=GREY, linewidth=1.2)
    if low is not None and high is not None:
        axes.plot([low, high], [0.5, 0.5], color=INTERVAL, linewidth=1.8)
    if value is not None:
        axes.plot([value], [0.5], marker="o", markersize=4, color=INTERVAL)
    return figure
