import pytest
from matplotlib.figure import Figure
from sample_tables import TEXT, WORDS

from sft_interactions.analysis.samples import AnalysedPrompt
from sft_interactions.figures.logical_model import (
    Canvas,
    break_lines,
    lay_out,
    shorten_apart,
    size_within,
    text_width,
)
from sft_interactions.figures.style import MEDIUM


def test_prompt_lines_hold_the_whole_text_within_the_width(prompt):
    width = 1.0
    lines = lay_out(prompt, width)
    assert "".join(text for line in lines for _, text, _ in line) == f"“{TEXT}”"
    assert [text for line in lines for _, text, player in line if player] == WORDS
    assert len(lines) > 1
    for line in lines:
        left, text, _ = line[-1]
        assert len(line) == 1 or left + text_width(text.rstrip(), MEDIUM) <= width


@pytest.mark.parametrize(
    ("player", "drawn"),
    [
        ("https://example.com/" + "a" * 200, ["https://example.com/", "…"]),
        ("one sentence of many words, " * 8 + "one player.", ["one sentence of many", "player."]),
    ],
    ids=["a word", "a sentence"],
)
def test_a_player_wider_than_a_line_stays_within_it(player, drawn):
    text, width = f"see {player} now", 4.0
    prompt = AnalysedPrompt("s", text, "t", "t", [player], [(4, 4 + len(player))])
    lines = lay_out(prompt, width)
    for line in lines:
        left, last, _ = line[-1]
        assert left + text_width(last.rstrip(), MEDIUM) <= width
    pieces = [piece for line in lines for _, piece, is_player in line if is_player]
    assert pieces[0].startswith(drawn[0])
    assert pieces[-1].endswith(drawn[1])
    assert [piece.strip() for line in lines for _, piece, _ in line][-1] == "”"


def test_words_that_begin_alike_are_cut_apart():
    links = [f"https://www.example.com/articles/{name}" for name in ("one", "two")]
    words = [*links, links[0], "film"]
    cut = [shorten_apart(word, words, 0.8, MEDIUM) for word in words]
    assert cut[0] == cut[2] != cut[1]
    assert (cut[0][0], cut[0][-3:], cut[1][-3:], cut[3]) == ("…", "one", "two", "film")
    assert max(text_width(text, MEDIUM) for text in cut) <= 0.8
    assert shorten_apart(links[0], [links[0], "film"], 0.8, MEDIUM).startswith("https")


def test_a_long_prompt_is_cut_around_its_players():
    text = "word " * 200 + "film and friend" + " word" * 200
    start = text.index("film")
    prompt = AnalysedPrompt(
        "s", text, "t", "t", ["film", "friend"], [(start, start + 4), (start + 9, start + 15)]
    )
    drawn = "".join(piece for line in lay_out(prompt, 6) for _, piece, _ in line)
    assert drawn == "“… film and friend …”"


def test_words_of_a_script_from_right_to_left_begin_at_the_right():
    text = "הסרט היה נהדר"
    first, middle, last = text.split()
    prompt = AnalysedPrompt("s", text, "t", "t", [first, last], [(0, 4), (9, 13)])
    ((line, *others), shown) = lay_out(prompt, 6), ["”", last, " ", middle, " ", first, "“"]
    assert ([piece for _, piece, _ in line], others) == (shown, [])
    assert [piece for _, piece, is_player in line if is_player] == [last, first]
    widths = [text_width(piece, MEDIUM) for piece in shown]
    assert [left for left, _, _ in line] == pytest.approx([sum(widths[:i]) for i in range(7)])


def test_a_dollar_in_a_text_is_not_mathematics():
    figure = Figure()
    Canvas(figure).text(1, 1, "from $5 to $x_")
    figure.draw_without_rendering()
    (text,) = figure.axes[0].texts
    assert not text.get_parse_math()


@pytest.mark.parametrize("text", ["short", "a title of very many words " * 8])
def test_a_title_is_as_large_as_its_line_allows(text):
    size = size_within(text, 6.5, 8)
    assert text_width(text, size, bold=True) <= 6.51
    assert (size == 8) == (text == "short")


def test_a_title_is_broken_into_lines():
    text = f"a title of {'x' * 80} and of more words"
    lines = break_lines(text, 2.0, 8)
    assert max(text_width(line, 8, bold=True) for line in lines) <= 2.0
    assert lines[0] == "a title of"
    assert lines[1].endswith("x…")
    assert " ".join(lines[2:]) == "and of more words"
