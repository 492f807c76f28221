import json
import re

import polars as pl
import pytest
from bad_input import refused

from sft_interactions.data.player_file import OwnPlayers
from sft_interactions.data.players import make_chooser, unsuitable_for

TEXT = "New York is not New Orleans, says the mayor."


@pytest.fixture
def file(tmp_path):
    def write(*rows, name="players.jsonl"):
        path = tmp_path / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    return write


def row(word=None, start=None, end=None, sample="a"):
    full = {"sample_id": sample, "word": word, "char_start": start, "char_end": end}
    return {key: value for key, value in full.items() if value is not None}


def spans(path, n, text=TEXT, sample="a"):
    return [(w.text, w.start, w.end) for w in OwnPlayers(path, n).choose(sample, text)]


def test_words_phrases_and_spans_in_reading_order(file):
    path = file(row("mayor"), row("New Orleans"), row(start=0, end=8), row("is", 9))
    expected = [("New York", 0, 8), ("is", 9, 11), ("New Orleans", 16, 27), ("mayor", 38, 43)]
    assert spans(path, 4) == expected
    choose = make_chooser({"n": 4, "choice": f"path:{path}"}, seed=0)
    assert [w.text for w in choose("a", TEXT, ())] == [text for text, *_ in expected]


def test_every_format_reads_alike(file, tmp_path):
    frame = pl.DataFrame([row("York", 4, 8, "1"), row("mayor", 38, 43, "1")])
    frame.write_csv(tmp_path / "p.csv")
    frame.write_parquet(tmp_path / "p.parquet")
    frame.write_ndjson(tmp_path / "p.jsonl")
    for suffix in ("csv", "parquet", "jsonl"):
        found = spans(tmp_path / f"p.{suffix}", 2, sample="1")
        assert found == [("York", 4, 8), ("mayor", 38, 43)]


@pytest.mark.bad_input(of="data")
def test_samples_without_players_enough_are_unsuitable(file):
    path = file(row("York"), row("mayor"), row("x", sample="b"))
    unsuitable = unsuitable_for({"n": 2, "choice": f"path:{path}", "unit": "word"}, seed=0)
    assert unsuitable("a", TEXT) is None
    assert unsuitable("b", "x") == "too few players in the file"
    assert unsuitable("c", TEXT) == "not in the file of players"
    with refused(r"sample b: 1 players in .*players\.n is 2"):
        OwnPlayers(path, 2).choose("b", "x")


MISTAKES = {
    "absent": ([row("York"), row("Paris")], "row 2: 'Paris' occurs 0 times in a; write it as it"),
    "twice": ([row("New"), row("mayor")], "row 1: 'New' occurs 2 times in a; give char_start"),
    "beyond": (
        [row("York"), row(start=40, end=99)],
        "row 2: characters 40 to 99 of a hold no text",
    ),
    "blank": ([row("York"), row(start=3, end=4)], "row 2: characters 3 to 4 of a hold no text"),
    "other": ([row("York"), row("Mayor", 38)], "row 2: a has 'mayor' there, not 'Mayor'; correct"),
    "one twice": (
        [row("York"), row("York"), row("mayor", 38)],
        "row 2: 'York' overlaps 'York' of a; drop one",
    ),
    "overlap": ([row("New York"), row("York")], "row 2: 'York' overlaps 'New York' of a; drop one"),
    "inside a word": (
        [row("York"), row("Orlean")],
        "row 2: 'Orlean' is a part of a word of a; give char_start, or the whole word",
    ),
    "too many": (
        [row("York"), row("mayor"), row("is")],
        "row 3: player 3 of a, but players.n is 2",
    ),
}


@pytest.mark.bad_input(of="data")
@pytest.mark.parametrize(("rows", "message"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_names_its_row(file, rows, message):
    path = file(*rows)
    with refused(re.escape(f"players.choice: {path}, {message}")):
        OwnPlayers(path, 2).choose("a", TEXT)


BROKEN = {
    "no place": ([row("York"), row(start=3)], "row 2: neither word nor char_start and char_end"),
    "no sample": ([row("York"), {"sample_id": "", "word": "x"}], "row 2: sample_id is empty"),
    "no number": ([row("York", "four")], "row 1: char_start is 'four', not a whole number"),
    "no known column": (
        [{**row("York"), "start": 4}],
        "has a column 'start', which says nothing; name it one of sample_id, word, char_start",
    ),
    "true as a number": ([row("York", True)], "row 1: char_start is True, not a whole number"),
    "a number with a point": ([row("York", 4.0)], "row 1: char_start is 4.0, not a whole number"),
    "a number as an id": ([{"sample_id": 7, "word": "York"}], "row 1: sample_id is 7, not text"),
    "no column": (
        [{"sample": "a", "word": "York"}],
        "has no column sample_id (found: 'sample', 'word'); add it",
    ),
}


@pytest.mark.bad_input(of="data")
@pytest.mark.parametrize(("rows", "message"), BROKEN.values(), ids=BROKEN)
def test_a_broken_file_is_refused_when_it_is_read(file, rows, message):
    with refused(re.escape(message)):
        OwnPlayers(file(*rows), 2)


@pytest.mark.bad_input(of="data")
def test_files_that_cannot_be_read(file, tmp_path):
    with refused(r"the format of .*players\.txt is not known; name a \.csv"):
        OwnPlayers(file(name="players.txt"), 2)
    with refused(r"players\.choice: .*gone\.csv cannot be read"):
        OwnPlayers(tmp_path / "gone.csv", 2)


def test_brackets_in_a_name_are_no_pattern(tmp_path):
    for name, word in (("p[1].parquet", "York"), ("p1.parquet", "mayor")):
        pl.DataFrame([row(word)]).write_parquet(tmp_path / name)
    assert spans(tmp_path / "p[1].parquet", 1) == [("York", 4, 8)]


def test_a_part_of_a_word_can_be_named_by_its_place(file):
    assert spans(file(row("Orlean", 20), row("mayor")), 2) == [
        ("Orlean", 20, 26),
        ("mayor", 38, 43),
    ]


@pytest.mark.bad_input(of="data")
@pytest.mark.parametrize(
    ("start", "end", "shown"),
    [(5, 9, "lm w"), (3, 6, "fil"), (4, 8, "ilm "), (9, 13, "as w")],
    ids=["UTF-16", "the end included", "from 1", "bytes"],
)
def test_places_that_are_counted_otherwise_are_refused(file, start, end, shown):
    """As other programs count them: nothing but the cut word tells."""
    text = "😀😀 film was wonderful"
    assert spans(file(row(start=3, end=7), row("was")), 2, text=text)[0] == ("film", 3, 7)
    path = file(row("wonderful"), row(start=start, end=end))
    message = rf"row 2: characters {start} to {end} of a are '{shown}', a part of a word; count cha"
    with refused(message):
        spans(path, 2, text=text)


def test_words_of_a_script_without_blanks_have_letters_beside_them(file):
    path = file(row("支持"), row("银行"))
    assert spans(path, 2, text="法院支持银行。") == [("支持", 2, 4), ("银行", 4, 6)]


@pytest.mark.bad_input(of="data")
@pytest.mark.parametrize(
    ("text", "start", "end"),
    [("यह फ़िल्म है", 3, 5), ("un cafe\u0301", 3, 7), ("so 👍🏽 good", 3, 4), ("שָׁלוֹם", 0, 2)],
)
def test_a_player_keeps_its_marks(file, text, start, end):
    path = file(row(start=start, end=end), row("last"))
    shown = re.escape(repr(text[start:end]))
    with refused(f"row 1: {shown} of a begins or ends inside a character"):
        spans(path, 2, text=f"{text} last")


CSV = {
    "a byte order mark": "\ufeffsample_id,word\na,York\na,mayor\n",
    "line ends of Windows": "sample_id,word\r\na,York\r\na,mayor\r\n",
    "empty places": "sample_id,word,char_start,char_end\na,York,,\na,mayor,38,\n",
    "an empty line": "sample_id,word\na,York\n\na,mayor",
}


@pytest.mark.bad_input(of="data")
@pytest.mark.parametrize(
    ("word", "text", "shown"),
    [
        ("don't", "I don’t know", '"don\'t"'),
        ("café", "the cafe\u0301 is", r"'caf\xe9'"),
        ("New\u00a0York", "in New York now", r"'New\xa0York'"),
        ("new york", "in New York now", "'new york'"),
    ],
    ids=["apostrophe", "accent", "blank", "case"],
)
def test_a_word_that_is_typed_otherwise_is_told(file, word, text, shown):
    """It may look the same."""
    with refused(r"row 1: .* occurs 0 times in a; ") as caught:
        spans(file(row(word), row("last")), 2, text=f"{text} last")
    end = f"blank or case than in {shown}; copy it out of the prompt"
    assert str(caught.value).endswith(f"; it stands there with another apostrophe, accent, {end}")


@pytest.mark.bad_input(of="data")
@pytest.mark.parametrize(
    ("player", "message"),
    [
        (row("New "), "'New ' has a blank at an end, which may belong to the next word; drop it"),
        (row("\u00a0York"), "has a blank at an end, .*; drop it"),
        (
            row(None, 3, 7),
            "characters 3 to 7 of a are 'New ', with a blank at an end, .*; leave it out",
        ),
    ],
    ids=["after", "before", "a place"],
)
def test_a_blank_at_an_end_is_refused(file, player, message):
    """The token of the next word may begin with it."""
    with refused(f"row 1: .*{message}"):
        spans(file(player, row("last")), 2, text="in New York, at last")


@pytest.mark.parametrize("text", CSV.values(), ids=CSV)
def test_csv_files(tmp_path, text):
    path = tmp_path / "players.csv"
    path.write_text(text, newline="")
    assert spans(path, 2) == [("York", 4, 8), ("mayor", 38, 43)]


def test_a_jsonl_file_with_a_byte_order_mark(tmp_path):
    path = tmp_path / "players.jsonl"
    lines = [json.dumps(row(word)) + "\n" for word in ("York", "mayor")]
    path.write_text("".join(lines), encoding="utf-8-sig")
    assert spans(path, 2) == [("York", 4, 8), ("mayor", 38, 43)]


BROKEN_TEXT = {
    "csv, a field is missing": ("p.csv", "sample_id,word\na\n", "p.csv, line 2 has 1 fields"),
    "csv, a mark is open": ("p.csv", 'sample_id,word\na,"York\n', "p.csv, line 2 cannot be read"),
    "csv, semicolons": (
        "p.csv",
        "sample_id;word\na;York\n",
        "(found: 'sample_id;word'); add it, and separate the columns of a csv file by commas",
    ),
    "csv, a name with a slip": (
        "p.csv",
        "sample_id,word,char_strat\na,York,4\n",
        "has a column 'char_strat', which says nothing; name it one of sample_id, word, char_start",
    ),
    "csv, names alone": ("p.csv", "sample_id,word\n", "p.csv has no row; add one"),
    "csv, a column twice": ("p.csv", "sample_id,word,word\na,b,c\n", "2 columns named 'word'"),
    "csv, no number": (
        "p.csv",
        "sample_id,word,char_start\na,York,4.0\n",
        "row 1: char_start is '4.0', not a whole number",
    ),
    "jsonl, a comma": ("p.jsonl", '{"sample_id": "a"},\n', "p.jsonl, line 1 is not a JSON object"),
    "jsonl, an array": ("p.jsonl", '\n["a"]\n', "p.jsonl, line 2 is not a JSON object"),
}


@pytest.mark.bad_input(of="data")
@pytest.mark.parametrize(("name", "text", "message"), BROKEN_TEXT.values(), ids=BROKEN_TEXT)
def test_a_broken_text_names_its_line(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with refused(re.escape(message)) as error:
        OwnPlayers(tmp_path / name, 2)
    assert str(error.value).startswith("players.choice: ")
