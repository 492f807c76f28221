import math

import numpy as np
import pytest
from matplotlib.figure import Figure

from sft_interactions.figures import panels


@pytest.mark.parametrize(
    ("sizes", "usual"),
    [
        ([1.0, 2.0, 100.0], 2.0),
        ([100.0, 2.0, 1.0], 2.0),
        ([1.0, 2.0, 9.9], None),
        # Two far beyond, one of them beyond the other.
        ([1.0, 1.0, 1.2, 2.0, 30.0, 168.0], 2.0),
        # As many far beyond as not; and more.
        ([1.0, 1.1, 20.0, 21.0], 1.1),
        ([1.0, 20.0, 21.0, 22.0], None),
        # One of two is not the usual one.
        ([1.0, 100.0], None),
        ([math.nan, 0.0, 1.0, 100.0], None),
        ([math.nan, 0.0, 1.0, 1.0, 100.0], 1.0),
        ([0.0, 0.0], None),
        ([], None),
    ],
)
def test_up_to_where_most_checkpoints_reach(sizes, usual):
    assert panels.find_usual(sizes) == usual


@pytest.mark.parametrize(
    ("low", "high", "usual", "ticks"),
    [
        (-30.0, 250.0, 2.3, [-30, -2, 0, 2, 200]),
        (0.0, 250.0, 2.3, [0, 2, 200]),
        (-1.0, 250.0, 2.3, [-1, 0, 2, 200]),
        (-250.0, 0.0, 0.04, [-200, -0.04, 0]),
    ],
)
def test_a_logarithmic_scale_holds_all_and_is_marked(low, high, usual, ticks):
    axes = Figure().subplots()
    panels.set_scale([axes], low, high, usual)
    assert axes.get_yscale() == "symlog"
    assert axes.get_yticks().tolist() == pytest.approx(ticks)
    bottom, top = axes.get_ylim()
    assert bottom <= low
    assert top >= high
    marked = [patch for patch in axes.patches if patch.get_gid() == "logarithmic"]
    assert len(marked) == (high > usual) + (-low > usual)
    for patch in marked:
        ends = np.abs([patch.get_y(), patch.get_y() + patch.get_height()])
        assert min(ends) == pytest.approx(usual)
