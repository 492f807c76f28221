import pytest

from sft_interactions.figures.intervals import draw


@pytest.mark.parametrize("claims_more", [True, False])
def test_value_interval_threshold_and_claimed_side_are_those_given(claims_more):
    (axes,) = draw(0.4, 0.1, 0.6, threshold=0.5, claims_more=claims_more).axes
    line, interval, point = axes.lines
    assert set(line.get_xdata()) == {0.5}
    assert list(interval.get_xdata()) == [0.1, 0.6]
    assert list(point.get_xdata()) == [0.4]
    left, right = axes.get_xlim()
    assert left < 0.1
    assert right > 0.6
    (area,) = axes.patches
    claimed = (0.5, right) if claims_more else (left, 0.5)
    assert (area.get_x(), area.get_x() + area.get_width()) == pytest.approx(claimed)


def test_what_is_undefined_is_not_drawn():
    (axes,) = draw(None, None, None, threshold=0.5, claims_more=True).axes
    assert len(axes.lines) == 1
    (axes,) = draw(0.5, None, None, threshold=0.5, claims_more=True).axes
    assert len(axes.lines) == 2
    left, right = axes.get_xlim()
    assert left < 0.5 < right
