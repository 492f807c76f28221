import re
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure

from sft_interactions.figures import style
from sft_interactions.figures.style import CLASSES, plain_style, save


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


def lightness(color):
    """L* of a colour, from 0 to 100."""
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4
        for part in to_rgb(color)
    )
    return 116 * (0.2126 * red + 0.7152 * green + 0.0722 * blue) ** (1 / 3) - 16


@pytest.mark.parametrize("shade", ["color", "light"])
def test_classes_differ_in_grey_print(shade):
    shades = sorted(lightness(getattr(look, shade)) for look in CLASSES.values())
    assert np.diff(shades).min() > 10


def test_words_in_the_colours_of_classes_can_be_read_on_white():
    for look in CLASSES.values():
        luminance = ((lightness(look.text) + 16) / 116) ** 3
        assert 1.05 / (luminance + 0.05) > 4.5  # as WCAG asks


def test_a_colour_has_one_meaning():
    """But for black, the greys and white, and a class whose words need no other colour."""
    colors = [
        *({look.color, look.light, look.text} for look in CLASSES.values()),
        set(style.DENOISING),
        set(style.OVERFITTING),
        *({area} for area, _, _ in style.VERDICTS.values()),
        *({color} for color in style.LOG_ODDS.values()),
    ]
    coloured = [to_hex(color) for group in colors for color in group if len(set(to_rgb(color))) > 1]
    assert len(coloured) == len(set(coloured))


@pytest.mark.parametrize(
    "module", sorted(path.name for path in Path(style.__file__).parent.glob("*.py"))
)
def test_colours_are_set_in_one_place(module):
    source = (Path(style.__file__).parent / module).read_text()
    elsewhere = re.findall("#[0-9a-fA-F]{6}", source)
    assert module == "style.py" or not elsewhere
