import re

import polars as pl
import pytest

from sft_interactions import report_table
from sft_interactions.analysis import findings, metrics
from sft_interactions.report_table import EMPTY, LEGEND, METRICS, name_of

SIZE = {"n_players": 8, "n_samples": 50}


@pytest.fixture
def write(tmp_path):
    """Function that writes a table: the csv read back, the lines of the table, and the notes below it."""

    def write(frame, **options):
        csv, page = tmp_path / "t.csv", tmp_path / "t.md"
        report_table.write(frame, csv, page, **SIZE, **options)
        table, _, notes = page.read_text("utf-8").partition("\n\n")
        return pl.read_csv(csv), table.splitlines(), notes.splitlines()

    return write


def test_digits_headings_and_an_empty_cell(write):
    frame = pl.DataFrame(
        {"class": ["emerged", "removed"], "mean_order": [1 / 3, None], "n_samples": [4, 5000]}
    )
    csv, table, notes = write(frame)
    assert csv.equals(frame)
    assert table == [
        "| interactions | mean order | prompts |",
        "| --- | --- | --- |",
        "| emerged | 0.333 | 4 |",
        "| removed |  | 5000 |",
    ]
    assert notes[0] == "- At most 50 prompts a run, n = 8 players (what is masked) in each."
    assert f"- {EMPTY}" in notes
    assert f"- {EMPTY}" not in write(frame[:1])[2]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (17.125, "17.1"),
        (0.00012345, "0.000123"),
        (1234.5, "1234"),
        (999.96, "1000"),
        (-0.0625, "-0.0625"),
        (2.0, "2"),
        (0.0, "0"),
    ],
)
def test_three_digits_and_a_whole_part_as_it_is(write, value, shown):
    (row,) = write(pl.DataFrame({"value": [value]}))[1][2:]
    assert row == f"| {shown} |"


def test_intervals_that_are_not_over_prompts(write):
    frame = pl.DataFrame({"ci_low": [0.0], "ci_high": [1.0], "order": [2]})
    usual, other = write(frame)[2], write(frame, intervals="Interval: over cells.")[2]
    assert [
        note.replace("at the level `bootstrap.level` of the config, over prompts", "over cells")
        for note in usual
    ] == other
    assert usual != other


def test_a_bar_or_a_line_end_does_not_end_a_cell(write):
    frame = pl.DataFrame({"SFT | lr\n1e-4": ["a|b"], "n": [4]})
    csv, table, _ = write(frame)
    assert csv.equals(frame)
    assert table == [r"| SFT \| lr 1e-4 | n |", "| --- | --- |", r"| a\|b | 4 |"]


def test_yes_and_no(write):
    _, table, _ = write(pl.DataFrame({"determined": [True, False]}))
    assert table[0] == "| same under every tie-break and reading |"
    assert table[2:] == ["| yes |", "| no |"]


def test_statistics_are_put_into_words_and_their_symbols_are_explained(write):
    frame = pl.DataFrame(
        {
            "part": ["1.1 few", "3.2 most"],
            "statistic": ["count of E_d / count of Ω_0", "L₁ / (L₁ + L₂)"],
        }
    )
    _, table, notes = write(frame[:1], in_words=True)
    assert "as a share of what was there before SFT. (count of E_d / count of Ω_0) |" in table[2]
    legend = "\n".join(notes)
    assert "Ω_0: the salient interactions before SFT" in legend
    assert "P_d at the end of the denoising stage" in legend
    assert "L₁" not in legend
    assert "L₁ in the denoising stage" in "\n".join(write(frame)[2])


def symbols_of(statistic):
    """What a reader cannot know of a statistic."""
    return re.findall(r"[A-ZΩ]_\w|[A-Z][₁₂]|[γρζ]|\b[dTS]\b", statistic)


@pytest.mark.parametrize("page", ["findings", "protocol"])
def test_every_symbol_of_a_statistic_is_in_the_legend(write, page):
    source = (findings.__file__).replace("findings.py", f"{page}.py")
    with open(source, encoding="utf-8") as file:
        quoted = re.findall(r'"([^"\n]*)"', file.read())
    statistics = [text for text in quoted if symbols_of(text)]
    assert statistics
    for text in statistics:
        if text in ("d", "T", "S"):
            continue
        legend = "\n".join(write(pl.DataFrame({"statistic": [text]}))[2][1:])
        for symbol in symbols_of(text):
            kind = symbol[-1] if re.search("[_₁₂]", symbol) else symbol
            assert kind in legend, (text, symbol)


def test_metrics_are_named_in_words():
    assert name_of("count") == "number of interactions"
    assert name_of("gamma_by_count_chance") == "chance level of: generalizable share γ, by count"
    assert name_of("rho_churn_floor") == "what noise alone gives for: uncancelled share ρ"
    assert name_of("count_joint") == "reading that changes least, number of interactions"
    for name in metrics_of_the_code():
        assert " " in name_of(name), name


def metrics_of_the_code():
    """Names of metrics that the analysis has."""
    with open(metrics.__file__, encoding="utf-8") as file:
        found = set(re.findall(r'"([a-z]+(?:_[a-z]+)*)"', file.read()))
    return sorted(found & set(METRICS))


def test_words_of_prompts_are_no_markup_and_need_no_legend(write):
    told = "“<b>a*b*</b>” and “$x_1$|[y](z)” together speak for “order γ”"
    csv, table, notes = write(pl.DataFrame({"in_words": [told]}))
    assert csv["in_words"].item() == told
    assert table[2] == (
        r"| “\<b\>a\*b\*\</b\>” and “\$x\_1\$\|\[y\](z)” together speak for “order γ” |"
    )
    assert len(notes) == 1


def test_a_legend_explains_what_occurs_and_nothing_else(write):
    _, _, notes = write(pl.DataFrame({"run": ["mine"], "value": [1.0]}))
    assert len(notes) == 1
    assert len(LEGEND) > 10
