import matplotlib
import pytest
from matplotlib.figure import Figure

from sft_interactions.figures.style import plain_style, save


@plain_style()
def draw():
    figure = Figure(figsize=(1, 1))
    figure.subplots().bar([0, 1], [1, 2], label="φ", hatch="//")
    figure.legend()
    return figure


@pytest.mark.slow
def test_saving_twice_gives_the_same_bytes(tmp_path):
    forms = ("pdf", "png", "svg")
    save(draw(), [tmp_path / f"first.{form}" for form in forms])
    save(draw(), [tmp_path / f"again.{form}" for form in reversed(forms)])
    for form in forms:
        first, again = (tmp_path / f"{name}.{form}" for name in ("first", "again"))
        assert first.read_bytes() == again.read_bytes(), form
    assert len(list(tmp_path.iterdir())) == 2 * len(forms)  # nothing temporary is left
    # Fonts are embedded as outlines that printers and editors take.
    assert b"/Type3" not in (tmp_path / "first.pdf").read_bytes()


def test_a_users_own_settings_change_nothing(tmp_path):
    own = {"font.size": 30, "axes.grid": True, "figure.dpi": 50, "savefig.transparent": True}
    forms = ("pdf", "png", "svg")
    save(draw(), [tmp_path / f"first.{form}" for form in forms])
    with matplotlib.rc_context(own):
        save(draw(), [tmp_path / f"again.{form}" for form in forms])
        assert matplotlib.rcParams["font.size"] == 30
    for form in forms:
        first, again = (tmp_path / f"{name}.{form}" for name in ("first", "again"))
        assert first.read_bytes() == again.read_bytes(), form


@plain_style()
def test_a_dollar_in_a_label_is_not_mathematics():
    """As mathematics the first would be drawn without its dollars, and the second cannot be drawn."""
    figure = Figure()
    axes = figure.subplots()
    axes.plot([1, 2], label="from $5 to $6")
    texts = [axes.set_title("a $x_{$"), axes.legend().get_texts()[0]]
    figure.draw_without_rendering()
    assert not any(text.get_parse_math() for text in texts)
