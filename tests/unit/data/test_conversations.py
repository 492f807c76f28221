import json
import logging

import polars as pl
import pytest
from bad_input import refused
from tiny_datasets import EVERY, write_jsonl

from sft_interactions.data.conversations import NO_TURNS, split_conversation
from sft_interactions.data.splits import build_splits, sample_id

ASKED = [{"role": "user", "content": " Hi? "}, {"role": "assistant", "content": "Yes.\n"}]
SYSTEM = {"role": "system", "content": "Be brief."}
SHAREGPT = [
    {"from": "system", "value": "Be brief."},
    {"from": "human", "value": "One"},
    {"from": "gpt", "value": "Two"},
    {"from": "human", "value": "Three"},
    {"from": "gpt", "value": "Four"},
]


@pytest.mark.parametrize(
    ("cells", "system", "expected"),
    [
        ([ASKED], None, ([], "Hi?", "Yes.")),
        ([json.dumps(ASKED)], "  ", ([], "Hi?", "Yes.")),
        ([ASKED[:1], ASKED[1:]], "Be brief.", ([SYSTEM], "Hi?", "Yes.")),
        ([[SYSTEM, *ASKED]], None, ([SYSTEM], "Hi?", "Yes.")),
        (
            [SHAREGPT],
            None,
            (
                [
                    SYSTEM,
                    {"role": "user", "content": "One"},
                    {"role": "assistant", "content": "Two"},
                ],
                "Three",
                "Four",
            ),
        ),
        (
            [[{"role": "user", "content": [{"type": "text", "text": "Hi"}]}, ASKED[1]]],
            None,
            ([], "Hi", "Yes."),
        ),
    ],
)
def test_the_last_question_and_its_answer_are_prompt_and_response(cells, system, expected):
    earlier, prompt, response = split_conversation(cells, system, "row 1")
    assert (json.loads(earlier), prompt, response) == expected


@pytest.mark.parametrize(
    "turns",
    [
        ASKED[:1],
        [SYSTEM, ASKED[1]],
        [],
        [ASKED[0], {"role": "tool", "content": "3"}, ASKED[1]],
        [ASKED[0], {**ASKED[1], "tool_calls": [{"name": "f"}]}],
        [ASKED[0], {**ASKED[1], "weight": 0}],
        [ASKED[0], {**ASKED[1], "train": False}],
        [ASKED[0], {**ASKED[1], "training": False}],
        [ASKED[0], {**ASKED[1], "loss": False}],
        [ASKED[0], {**ASKED[1], "loss": 0.0}],
        [ASKED[0], {**ASKED[1], "weight": "0"}],
        [ASKED[0], {**ASKED[1], "weight": " 0.0"}],
        [ASKED[0], {**ASKED[1], "train": "False"}],
        [ASKED[0], {**ASKED[1], "loss": "no"}],
        [ASKED[0], {**ASKED[1], "loss_scale": 0}],
        [ASKED[0], {**ASKED[1], "weight": 1, "loss_scale": "0"}],
    ],
)
def test_a_conversation_without_a_question_and_its_answer_at_the_end_is_none(turns):
    assert split_conversation([turns], None, "row 1") is None


@pytest.mark.bad_input(of="data")
@pytest.mark.parametrize(
    ("cells", "system", "message"),
    [
        (
            ["Hi"],
            None,
            "row 7: turns: 'Hi' is text and no list of turns; name the column of the prompt",
        ),
        ([3], None, "row 7: turns: '3' is no list of turns"),
        ([[{"text": "Hi"}]], None, "neither role and content nor from and value"),
        ([[{"role": "user", "content": [{"type": "image"}]}]], None, "is not text; drop the row"),
        ([[{"role": "user", "content": None}]], None, "is not text"),
        (
            [[ASKED[0], {**ASKED[1], "reasoning_content": "Hm."}]],
            None,
            "a turn has reasoning_content beside its text, which chat templates write",
        ),
        *(
            (
                [[ASKED[0], {**ASKED[1], "loss_scale": value}]],
                None,
                f"row 7: turns: loss_scale is {str(value)!r} in the last answer, so whether that is to be "
                "learned is not known; write true or false",
            )
            for value in ("some", "", -1, float("nan"), [0])
        ),
        ([[SYSTEM, *ASKED]], "Be long.", "and so has the column `system`; drop one"),
    ],
)
def test_what_is_no_conversation_stops_with_its_row(cells, system, message):
    with refused("row 7") as error:
        split_conversation(cells, system, "row 7")
    assert message in str(error.value)


def conversations(n, **keys):
    return [
        {
            "messages": [
                *([SYSTEM] if i % 2 else []),
                {"role": "user", "content": "the same question", "weight": i},
                {"role": "assistant", "content": f"answer {i % 2}"},
            ],
            **keys,
        }
        for i in range(n)
    ]


def build(path, **keys):
    splits, _ = build_splits(
        {"source": path, "analysis": 2, **keys}, seed=0, name="d", unsuitable=lambda *_: None
    )
    return splits


def test_turns_that_are_text_already_are_the_same_ones(tmp_path):
    rows = conversations(4)
    texts = [{"messages": json.dumps(row["messages"])} for row in rows]
    found = [
        build(write_jsonl(tmp_path / name, of_file), turns="messages")["analysis"]
        for name, of_file in (("turns.jsonl", rows), ("texts.jsonl", texts))
    ]
    assert found[0].equals(found[1])


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_the_same_question_after_other_turns_is_another_sample(tmp_path, form):
    source = write_jsonl(tmp_path / "rows.jsonl", conversations(4))
    if form == "parquet":
        pl.read_ndjson(tmp_path / "rows.jsonl").write_parquet(tmp_path / "rows.parquet")
        source = f"path:{tmp_path}/rows.parquet"
    splits = build(source, turns="messages")
    assert list(splits) == ["analysis"]
    rows = splits["analysis"].sort("target")
    assert rows["prompt"].to_list() == ["the same question"] * 2
    assert [json.loads(text) for text in rows["earlier"]] == [[], [SYSTEM]]
    assert rows["sample_id"].to_list() == [
        sample_id("the same question", "answer 0"),
        sample_id("the same question", "answer 1", rows["earlier"][1]),
    ]
    # Of the first no name changes because there are data sets of conversations.
    assert sample_id("a prompt", "yes", NO_TURNS) == sample_id("a prompt", "yes")


def test_a_column_of_what_the_system_is_told(tmp_path):
    rows = [
        {"text": f"row {i}", "label": "x", "told": told}
        for i, told in enumerate(["Be brief.", "", None])
    ]
    source = write_jsonl(tmp_path / "rows.jsonl", rows)
    found = build(source, prompt="text", target="label", system="told", analysis=3)["analysis"]
    earlier = dict(found.select("prompt", "earlier").iter_rows())
    assert json.loads(earlier["row 0"]) == [SYSTEM]
    assert earlier["row 1"] == earlier["row 2"] == NO_TURNS


def test_conversations_that_are_left_out_are_told(tmp_path, caplog):
    rows = [*conversations(2), {"messages": ASKED[:1]}]
    source = write_jsonl(tmp_path / "rows.jsonl", rows)
    with caplog.at_level(logging.WARNING):
        build(source, turns=["messages"])
    assert "1 of 3 conversations do not end with a user's turn and the answer to it" in caplog.text


@pytest.mark.parametrize("weight", [1, 0.5, None, True, "1", "true", "Yes"])
def test_an_answer_that_is_to_be_learned_is_a_response(weight):
    """The earlier one may be left out of a training; it is read."""
    turns = [ASKED[0], {**ASKED[1], "weight": 0}, ASKED[0], {**ASKED[1], "weight": weight}]
    earlier, *pair = split_conversation([turns], None, "row 1")
    assert (len(json.loads(earlier)), pair) == (2, ["Hi?", "Yes."])


@pytest.mark.bad_input(of="data")
@pytest.mark.parametrize("role", ["developer", "bot", "Assistant"])
def test_roles_that_are_not_known_are_told(tmp_path, caplog, role):
    foreign = [{"messages": [{"role": role, "content": "Be brief."}, *ASKED]}]
    with caplog.at_level(logging.WARNING):
        build(write_jsonl(tmp_path / "rows.jsonl", conversations(4) + foreign), turns="messages")
    assert (
        "1 of 5 conversations do not end with a user's turn and the answer to it, have turns of others, "
        f"such as tools (roles '{role}'), or an answer of weight 0, and are left out"
    ) in caplog.text
    with refused(rf"1 of 1 conversations .* \(roles '{role}'\).*; call the roles user, assistant"):
        build(write_jsonl(tmp_path / "rows.jsonl", foreign), turns="messages")


def test_training_samples_too(tmp_path):
    rows = [
        {"messages": [{"role": "user", "content": f"q {i}"}, {"role": "assistant", "content": "a"}]}
        for i in range(12)
    ]
    source = write_jsonl(tmp_path / "rows.jsonl", rows)
    splits = build(source, turns="messages", **EVERY)
    assert {split: len(frame) for split, frame in splits.items()} == EVERY
