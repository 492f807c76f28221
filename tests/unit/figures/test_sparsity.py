import numpy as np

from sft_interactions.analysis.sparsity import Sparsity
from sft_interactions.figures import sparsity


def test_it_has_the_strengths_of_at_most_twenty_samples():
    strengths = [np.array([1.0, 0.5, 0.1 / k]) for k in range(1, 31)]
    run = Sparsity("A run", 5, strengths, 2.5, 26)
    figure = sparsity.draw([run], n_players=4, threshold=0.05)
    lines = [line for line in figure.axes[0].lines if line.get_gid() == "sample"]
    assert len(lines) == 20
    for line, expected in zip(lines, strengths[:20], strict=True):
        np.testing.assert_array_equal(line.get_ydata(), expected)
    (salient,) = [line for line in figure.axes[0].lines if line.get_gid() == "salient"]
    assert set(salient.get_xdata()) == {2.5}


def test_no_tick_is_written_as_mathematics():
    """Of two players the axis is shorter than a power of ten."""
    run = Sparsity("A run", 5, [np.array([1.0, 0.5])], 1.5, 6)
    figure = sparsity.draw([run], n_players=2, threshold=0.05)
    figure.draw_without_rendering()
    ticks = figure.axes[0].get_xticklabels(which="both")
    assert "1" in [tick.get_text() for tick in ticks]
    assert not any("$" in tick.get_text() for tick in ticks)
