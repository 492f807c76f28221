import numpy as np
import pytest
from sample_tables import SAMPLES

from sft_interactions.analysis.faithfulness import Faithfulness, LogOdds
from sft_interactions.figures import faithfulness


def make_log_odds(error):
    llm = np.random.default_rng(1).normal(size=(2, 16))
    size = np.abs(llm[:, -1] - llm[:, 0])[:, None]
    return LogOdds(SAMPLES, llm, llm + error * size, llm + 3 * error * size)


def test_log_odds_are_sorted_and_the_errors_as_shares():
    log_odds = make_log_odds(0.03)
    figure = faithfulness.draw([Faithfulness("A run", 5, log_odds, "s1")], noise_ratio=0.04)
    top, bottom = figure.axes
    order = np.argsort(log_odds.llm[1])
    drawn = {line.get_gid(): line.get_ydata() for line in top.lines}
    np.testing.assert_allclose(drawn["llm"], log_odds.llm[1][order])
    np.testing.assert_allclose(drawn["logical"], log_odds.logical[1][order])
    np.testing.assert_allclose(drawn["salient"], log_odds.salient[1][order])
    for patch, error in zip(bottom.patches, (0.03, 0.09), strict=True):
        shares, edges, _ = patch.get_data()
        assert shares.sum() == pytest.approx(1)
        full = np.flatnonzero(shares)
        assert edges[full[0]] - 1e-9 <= error <= edges[full[-1] + 1] + 1e-9
    bounds = [line.get_xdata()[0] for line in bottom.lines]
    assert bounds == [-0.04, 0.04]


def test_a_bound_that_is_no_share_of_the_difference_is_not_drawn():
    run = Faithfulness("A run", 5, make_log_odds(0.03), "s1")
    figure = faithfulness.draw([run], noise_ratio=None)
    _, bottom = figure.axes
    assert not bottom.lines
    names = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    assert names
    assert not any("noise bound" in name for name in names)
