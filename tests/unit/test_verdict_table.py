"""The table of the verdicts, as it was written and as others have saved it."""

import pytest
from bad_input import refused

from sft_interactions.verdict_table import COLUMNS, read

ROWS = (
    (
        "a-x",
        "20",
        "Keep step 20: lowest, 1.5.",
        "It learned, by 0.5.",
        "Of 9.0, 2.0 are gone.",
        "No.",
    ),
    ("b-x", "", "No checkpoint is named.", "", "Of 8.0, 3.0 are gone.", "No."),
)
PAGE = "# Verdict\n" + "".join(
    f"## {run}\n- **{checkpoint}**\n" + "".join(f"- {text}\n" for text in others if text)
    for run, _, checkpoint, *others in ROWS
)


def as_text(rows=ROWS, delimiter=","):
    quoted = [[f'"{cell}"' if cell else "" for cell in row] for row in (COLUMNS, *rows)]
    return "\n".join(delimiter.join(row) for row in quoted) + "\n"


@pytest.fixture
def files(tmp_path):
    table, page = tmp_path / "verdict.csv", tmp_path / "verdict.md"
    table.write_text(as_text())
    page.write_text(PAGE)
    return table, page


def test_rows_are_those_that_were_written(files):
    assert [tuple(row.values()) for row in read(*files)] == list(ROWS)


def test_another_spelling_of_the_same_table_is_read(files):
    before = read(*files)
    files[0].write_bytes(b"\xef\xbb\xbf" + as_text().replace("\n", "\r\n").encode())
    assert read(*files) == before


@pytest.mark.bad_input(of="folder")
@pytest.mark.parametrize(
    "text",
    [
        as_text().replace("2.0 are", "5.0 are"),
        as_text().replace("step 20", "step 10"),
        as_text().replace('"20"', '"10"'),
        as_text().replace('"20"', '"2"'),
        as_text().replace('"20"', ""),
        as_text(delimiter=";"),
        as_text(ROWS[::-1]),
        as_text(ROWS[:0]),
        as_text().replace(',"No."', ""),
        "",
    ],
    ids=[
        "number",
        "step",
        "kept",
        "part",
        "none",
        "semicolon",
        "order",
        "no rows",
        "a field",
        "empty",
    ],
)
def test_a_table_that_was_changed_is_refused(files, text):
    files[0].write_text(text)
    with refused("verdict.csv: its sentences are not those of .*verdict.md, .*; delete both"):
        read(*files)


@pytest.mark.bad_input(of="folder")
def test_a_page_or_an_encoding_that_was_changed_is_refused(files):
    files[1].write_text(PAGE.replace("3.0 are", "1.0 are"))
    with refused("its sentences are not those of"):
        read(*files)
    files[0].write_bytes(as_text().replace("No.", "No\u00e9").encode("latin-1"))
    with refused("its sentences are not those of"):
        read(*files)
