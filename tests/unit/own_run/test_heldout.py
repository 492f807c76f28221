import csv
import json

import pytest
from bad_input import refused

from sft_interactions.own_run.heldout import read_heldout

TURNS = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
SHAREGPT = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]
FORMS = {
    "messages": ({"messages": TURNS}, {"turns": "messages"}),
    "messages beside their first one": (
        {"prompt": "q", "prompt_id": "1", "messages": TURNS, "category": "c"},
        {"turns": "messages"},
    ),
    "sharegpt": (
        {"conversations": SHAREGPT, "system": "s", "tools": ""},
        {"turns": "conversations", "system": "system"},
    ),
    "prompt and completion as turns": (
        {"prompt": TURNS[:1], "completion": TURNS[1:]},
        {"turns": ["prompt", "completion"]},
    ),
    "prompt and completion": (
        {"prompt": "q", "completion": " a"},
        {"prompt": "prompt", "target": "completion"},
    ),
    "alpaca": (
        {"instruction": "i", "input": "", "output": "o"},
        {"prompt": ["instruction", "input"], "target": "output"},
    ),
    "alpaca without input": (
        {"instruction": "i", "output": "o"},
        {"prompt": "instruction", "target": "output"},
    ),
    "dolly": (
        {"instruction": "i", "context": "c", "response": "r", "category": "x"},
        {"prompt": ["instruction", "context"], "target": "response"},
    ),
    "question": (
        {"question": "q", "answer": "a", "system_prompt": "s"},
        {"prompt": "question", "target": "answer", "system": "system_prompt"},
    ),
    "classes": ({"text": "t", "label": "l"}, {"prompt": "text", "target": "label"}),
}


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize(("row", "columns"), FORMS.values(), ids=FORMS)
def test_the_columns_of_each_form_are_found(tmp_path, row, columns):
    found = read_heldout(write(tmp_path / "rows.jsonl", [row, row]), {})
    assert (found.columns, found.n_rows) == (columns, 2)
    assert found.joins == isinstance(columns.get("prompt"), list)
    array = tmp_path / "rows.json"
    array.write_text(json.dumps([row]))
    assert read_heldout(array, {}).columns == columns


@pytest.mark.bad_input(of="data")
@pytest.mark.parametrize(
    ("names", "left"),
    [
        (("prompt", "input", "output"), "prompt"),
        (("question", "context", "answer"), "context"),
        (("prompt", "context", "response"), "context"),
        (("instruction", "query", "response"), "query"),
    ],
)
def test_a_text_that_may_belong_to_the_prompt_is_not_left_out(tmp_path, names, left):
    path = write(tmp_path / "rows.jsonl", [dict.fromkeys(names, "text")])
    with refused(f"has the column {left} beside"):
        read_heldout(path, {})
    given = {"prompt": names[0], "target": names[2]}
    assert read_heldout(path, given).columns == given
    # A column in which nothing stands is none.
    write(path, [{**dict.fromkeys(names, "text"), left: ""}])
    if left != names[0]:
        assert read_heldout(path, {}).columns["target"] == names[2]


def test_a_table_with_a_header(tmp_path):
    path = tmp_path / "rows.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([["prompt", "response"], ["q, too", "a"]])
    found = read_heldout(path, {})
    assert found.columns == {"prompt": "prompt", "target": "response"}


@pytest.mark.bad_input(of="data")
def test_named_columns_come_first(tmp_path):
    rows = [{"messages": TURNS, "q": "x", "a": "y"}]
    path = write(tmp_path / "rows.jsonl", rows)
    assert read_heldout(path, {"prompt": "q", "target": "a"}).columns == {
        "prompt": "q",
        "target": "a",
    }
    assert read_heldout(path, {"turns": "messages"}).columns == {"turns": "messages"}
    with refused(r"^prompt: .* has no column 'z'; name one of messages, q, a"):
        read_heldout(path, {"prompt": "z", "target": "a"})


@pytest.mark.parametrize(
    ("rows", "between"),
    [
        ([("q", " a"), ("r", " b")], " "),
        ([("q\n", "a"), ("r\n", "b")], "\n"),
        ([("q", "a"), ("r", "b")], ""),
        ([("q", " a"), ("r", "b")], None),
        ([("q", 3)], None),
    ],
)
def test_what_stands_between_prompt_and_completion(tmp_path, rows, between):
    rows = [{"prompt": prompt, "completion": completion} for prompt, completion in rows]
    assert read_heldout(write(tmp_path / "rows.jsonl", rows), {}).between == between


@pytest.mark.bad_input(of="data")
def test_parquet_is_read_by_the_names_that_are_given(tmp_path):
    path = tmp_path / "rows.parquet"
    path.write_bytes(b"PAR1")
    with refused("are not looked into; add prompt=COLUMN target=COLUMN"):
        read_heldout(path, {})
    found = read_heldout(path, {"turns": "messages", "system": "s"})
    assert (found.columns, found.n_rows) == ({"turns": "messages", "system": "s"}, None)


@pytest.mark.bad_input(of="data")
@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("rows.jsonl", '{"a": 1, "b": 2}', "which columns of .* is not known .a, b.; add prompt="),
        ("rows.jsonl", "", "has no rows; name another file"),
        (
            "rows.json",
            '{"messages": []}\n{"messages": []}\n',
            "has an object a line; call it .jsonl",
        ),
        ("rows.txt", "text", "its name does not tell what it is"),
        ("rows.jsonl", '{"a": 1,}', "line 1 is not a JSON object"),
        ("rows.csv.gz", "\x1f", "its name does not tell"),
    ],
)
def test_a_file_that_is_not_understood_is_one_line(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with refused(message) as error:
        read_heldout(tmp_path / name, {})
    assert "\n" not in str(error.value)


@pytest.mark.bad_input(of="data")
def test_no_file(tmp_path):
    with refused(r"^heldout: there is no file"):
        read_heldout(tmp_path / "no.jsonl", {})


@pytest.mark.parametrize(
    ("rows", "columns"),
    [
        (
            [
                {"instruction": "i", "output": "o"},
                {"instruction": "i", "input": "n", "output": "o"},
            ],
            {"prompt": ["instruction", "input"], "target": "output"},
        ),
        (
            [{"prompt": "q", "response": "a"}, {"prompt": "q", "response": "a", "system": "s"}],
            {"prompt": "prompt", "target": "response", "system": "system"},
        ),
        ([{"messages": None}, {"messages": []}, {"messages": TURNS}], {"turns": "messages"}),
    ],
)
def test_columns_that_the_first_row_lacks_are_read(tmp_path, rows, columns):
    assert read_heldout(write(tmp_path / "rows.jsonl", rows), {}).columns == columns


@pytest.mark.bad_input(of="command_line")
@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"prompt": "q"}, "prompt: is given without target; add target=COLUMN"),
        ({"target": "a"}, "target: is given without prompt; add prompt=COLUMN"),
        ({"turns": "messages", "target": "a"}, "turns: target is given too.*drop one"),
    ],
)
@pytest.mark.parametrize("name", ["rows.jsonl", "rows.parquet"])
def test_a_column_that_would_be_ignored_is_refused(tmp_path, given, message, name):
    path = write(tmp_path / name, [{"messages": TURNS, "q": "x", "a": "y"}])
    with refused(message):
        read_heldout(path, given)


@pytest.mark.bad_input(of="data")
def test_a_table_with_tabs_whose_fields_are_quoted_is_refused(tmp_path):
    path = tmp_path / "rows.tsv"
    with path.open("w", newline="") as file:
        csv.writer(file, delimiter="\t").writerows([["prompt", "response"], ['say "q"', "a"]])
    with refused("line 2: .* has them doubled inside"):
        read_heldout(path, {})


@pytest.mark.bad_input(of="data")
@pytest.mark.parametrize("mark", [True, False, "False"])
@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "q", "completion": "a"},
        {"prompt": TURNS[:1], "completion": TURNS[1:]},
        {"messages": TURNS},
    ],
    ids=["texts", "two columns of turns", "messages"],
)
def test_responses_that_are_not_wanted_are_not_taken(tmp_path, row, mark):
    path = write(tmp_path / "rows.jsonl", [row, {**row, "label": mark}])
    message = (
        rf"row 2: label is {str(mark).lower()} beside .*; keep the rows with label true and drop"
    )
    with refused(message):
        read_heldout(path, {})
    given = {"turns": "messages"} if "messages" in row else {}
    with refused(message):
        read_heldout(path, given or {"prompt": "prompt", "target": "completion"})
    # What tells classes is no such mark.
    for labels in ((mark, "a class"), (0, 1)):
        write(path, [{**row, "label": label} for label in labels])
        assert read_heldout(path, {}).unread == ["label"]


@pytest.mark.bad_input(of="data")
@pytest.mark.parametrize(
    ("form", "name", "cell"),
    [
        ({"question": "q", "answer": "a"}, "choices", ["a", "b"]),
        ({"question": "q", "answer": "a"}, "options", {"text": ["a", "b"], "label": ["A", "B"]}),
        ({"question": "q", "answer": "a"}, "title", "t"),
        ({"text": "t", "label": "l"}, "text_pair", "u"),
        ({"text": "t", "label": "l"}, "hypothesis", "u"),
        ({"input": "i", "output": "o"}, "knowledge", "k"),
        ({"input": "i", "output": "o"}, "premise", "k"),
    ],
)
def test_lists_and_second_texts_are_not_left_out_of_a_prompt(tmp_path, form, name, cell):
    prompt, target = form
    path = write(tmp_path / "rows.jsonl", [{**form, name: "[]"}, {**form, name: cell}])
    with refused(f"has the column {name} beside .*; add prompt=COLUMN target=COLUMN"):
        read_heldout(path, {})
    found = read_heldout(path, {"prompt": prompt, "target": target})
    assert found.unread == [name]
    found = read_heldout(path, {"prompt": name, "target": target})
    assert (found.columns["prompt"], found.unread) == (name, [prompt])


@pytest.mark.bad_input(of="data")
def test_a_second_column_of_responses_is_not_left_out(tmp_path):
    row = {"prompt": "q", "completion": "a", "response": "b"}
    path = write(tmp_path / "rows.jsonl", [{**row, "response": None}, row])
    with refused(
        "row 2: the columns completion and response may both be the response; add prompt="
    ):
        read_heldout(path, {})
    given = {"prompt": "prompt", "target": "response"}
    assert read_heldout(path, given).columns == given
    turns = {**row, "prompt": TURNS[:1], "completion": TURNS[1:]}
    with refused("row 1: the columns completion and response may both .*; drop the one"):
        read_heldout(write(path, [turns]), {})
    # The same once more is no other one.
    for same in (row, turns):
        write(path, [{**same, "response": "a"}])
        assert read_heldout(path, {}).unread == ["response"]


@pytest.mark.bad_input(of="data")
def test_a_text_beside_turns_is_not_left_out_unless_they_say_it(tmp_path):
    row = {"messages": TURNS, "context": "c"}
    path = write(tmp_path / "rows.jsonl", [{**row, "context": ""}, row])
    with refused(
        "has the column context beside messages, .*; add turns=messages to --config, or drop"
    ):
        read_heldout(path, {})
    assert read_heldout(path, {"turns": "messages"}).unread == ["context"]
    pair = {"prompt": TURNS[:1], "completion": TURNS[1:], "choices": ["c"]}
    with refused(
        "has the column choices beside completion, prompt, .*; drop it, if the training did"
    ):
        read_heldout(write(path, [pair]), {})
    parts = [{"role": "user", "content": [{"type": "text", "text": "c: q"}]}, TURNS[1]]
    write(path, [{"messages": parts, "context": " c", "choices": ["a", "q"]}])
    assert read_heldout(path, {}).unread == ["context", "choices"]


@pytest.mark.bad_input(of="data")
@pytest.mark.parametrize("weight", [0, 0.0, "0", False])
@pytest.mark.parametrize("name", ["weight", "loss_scale"])
def test_rows_that_are_not_to_be_learned_are_refused(tmp_path, name, weight):
    path = write(tmp_path / "rows.jsonl", [{"messages": TURNS}, {"messages": TURNS, name: weight}])
    for given in ({}, {"turns": "messages"}):
        with refused(f"row 2: {name} is 0, so it is not to be learned, .*; leave such rows out"):
            read_heldout(path, given)
    write(path, [{"messages": TURNS, name: 0.5}, {"messages": TURNS, name: None}])
    assert read_heldout(path, {}).unread == [name]


def test_columns_that_are_not_read_are_known(tmp_path):
    row = {"id": 7, "prompt": "q", "completion": "a", "system": "s", "source": "w", "empty": ""}
    path = write(tmp_path / "rows.jsonl", [{**row, "source": None}, row])
    assert read_heldout(path, {}).unread == ["id", "source"]
    assert read_heldout(write(path, [FORMS["alpaca"][0]]), {}).unread == []
