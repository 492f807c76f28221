import matplotlib
from matplotlib.figure import Figure

from sft_interactions.figures.style import RC, save


def draw():
    with matplotlib.rc_context(RC):
        figure = Figure(figsize=(1, 1))
        figure.subplots().bar([0, 1], [1, 2], label="φ", hatch="//")
        figure.legend()
    return figure


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
