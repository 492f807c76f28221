import logging

import polars as pl
import pytest
from bad_input import refused
from tiny_datasets import EVERY, block, rows, write_jsonl

from sft_interactions.data.reading import load_rows
from sft_interactions.data.splits import build_splits, clean, sample_id, settings_of_split


def build(dataset, files=None, *, seed=0, unsuitable=lambda *_: None):
    splits, _ = build_splits(dataset, files, seed=seed, name="d", unsuitable=unsuitable)
    return splits


def prompts(splits):
    return {split: set(frame["prompt"]) for split, frame in splits.items()}


@pytest.fixture
def twelve(tmp_path):
    return write_jsonl(tmp_path / "rows.jsonl", rows(12))


@pytest.mark.bad_input(of="data")
def test_folder_with_a_file_for_each_split(tmp_path):
    for split in ("train", "dev", "test"):
        write_jsonl(tmp_path / f"{split}.jsonl", [{"text": split, "label": "x"}])
    splits = {"train": "train.jsonl", "validation": "dev.jsonl", "analysis": "test.jsonl"}
    dataset = block(f"path:{tmp_path}", splits=splits, train=1, validation=1, analysis=1)
    assert prompts(build(dataset)) == {
        "train": {"train"},
        "validation": {"dev"},
        "analysis": {"test"},
    }
    with refused("is a folder; name a file in it"):
        load_rows(block(f"path:{tmp_path}"))
    with refused(r"there is no file .*absent.jsonl.*correct source or splits"):
        build(dataset | {"splits": splits | {"train": "absent.jsonl"}})


def test_goemotions_form(tmp_path):
    (tmp_path / "train.tsv").write_text('So "happy" now!\t1\tid1\nMixed, I guess\t0,2\tid2\n')
    (tmp_path / "labels.txt").write_text("anger\njoy\nneutral\n")
    splits = dict.fromkeys(("train", "validation", "analysis"), "train.tsv")
    dataset = block(
        f"path:{tmp_path}",
        columns=["text", "label", "comment_id"],
        splits=splits,
        target_separator=",",
        target_names=f"path:{tmp_path}/labels.txt",
    )
    (frame,) = load_rows(dataset).values()
    assert clean(frame, {}, "g").select("prompt", "target").rows() == [('So "happy" now!', "joy")]


@pytest.mark.bad_input(of="data")
def test_dolly_form(tmp_path):
    rows = [
        {"instruction": "Who won?", "context": " Ann beat Bo. ", "response": "Ann"},
        {"instruction": "Why?", "context": "", "response": "So."},
        {"instruction": "How?", "context": None, "response": "Thus."},
        {"instruction": "", "context": "", "response": "Dropped."},
    ]
    source = write_jsonl(tmp_path / "t.jsonl", rows)
    keys = {"prompt": ["instruction", "context"], "target": "response"}
    (frame,) = load_rows(block(source, **keys)).values()
    assert sorted(clean(frame, {}, "d").select("prompt", "target").rows()) == [
        ("How?", "Thus."),
        ("Who won?\n\nAnn beat Bo.", "Ann"),
        ("Why?", "So."),
    ]
    with refused("prompt: there is no column 'input'"):
        load_rows(block(source, **keys | {"prompt": ["instruction", "input"]}))


def kept(source, **filters):
    (frame,) = load_rows(block(source, filter=filters)).values()
    return set(clean(frame, filters, "d")["prompt"])


@pytest.mark.bad_input(of="data")
def test_each_filter(tmp_path):
    table = [
        {"text": " one two ", "label": "x", "score": "0.5"},
        {"text": "one two three", "label": "y", "score": ""},
        {"text": "see http://a", "label": "x", "score": "nan"},
        {"text": "one", "label": "y", "score": "0.9"},
        {"text": "  ", "label": "y", "score": "0.9"},
        {"text": None, "label": "y", "score": "0.9"},
        {"text": "no answer", "label": " ", "score": "0.9"},
    ]
    source = write_jsonl(tmp_path / "t.jsonl", table)
    all_four = {"one two", "one two three", "see http://a", "one"}
    assert kept(source) == all_four
    assert kept(source, min_words=2) == all_four - {"one"}
    assert kept(source, max_words=2) == all_four - {"one two three"}
    assert kept(source, exclude_pattern="http(?=:)") == all_four - {"see http://a"}
    assert kept(source, targets=["y"]) == {"one two three", "one"}
    assert kept(source, min_value={"score": 0.5}) == {"one two", "one"}
    with refused("exclude_pattern is no regular expression"):
        kept(source, exclude_pattern="(")
    with refused("min_value: column 'label' holds 'x', not a number"):
        kept(source, min_value={"label": 1})


def test_repeated_prompts(tmp_path, caplog):
    table = [
        {"text": "same", "label": "x"},
        {"text": "same ", "label": "x"},
        {"text": "conflict", "label": "x"},
        {"text": "conflict", "label": "y"},
    ]
    caplog.set_level(logging.INFO)
    assert kept(write_jsonl(tmp_path / "t.jsonl", table)) == {"same"}
    assert "d: 1 rows dropped: the same row again" in caplog.messages
    assert "d: 2 rows dropped: other response elsewhere" in caplog.messages
    told = [record for record in caplog.records if "rows dropped" in record.message]
    assert len(told) > 2
    assert all(record.in_log_alone == (": 0 " in record.message) for record in told)


@pytest.mark.bad_input(of="data")
def test_a_prompt_is_in_one_split_only(tmp_path):
    shared = [{"text": "shared", "label": "x"}]
    for split in ("a", "b", "c"):
        write_jsonl(tmp_path / f"{split}.jsonl", [*shared, {"text": split, "label": "y"}])
    splits = {"train": "a.jsonl", "validation": "b.jsonl", "analysis": "c.jsonl"}
    dataset = block(f"path:{tmp_path}", splits=splits, train=2, validation=1, analysis=1)
    assert prompts(build(dataset)) == {
        "train": {"shared", "a"},
        "validation": {"b"},
        "analysis": {"c"},
    }
    with refused(r"validation: 2 rows wanted, 1 available \(prompts .*: 1\); lower validation"):
        build(dataset | {"validation": 2})


def test_one_table_is_divided_without_overlap(twelve):
    splits = build(block(twelve))
    assert {split: len(frame) for split, frame in splits.items()} == EVERY
    assert len(set().union(*prompts(splits).values())) == 12
    for frame in splits.values():
        columns = ["sample_id", "prompt", "target", "earlier"]
        assert frame.schema == dict.fromkeys(columns, pl.String)
        assert frame["sample_id"].is_sorted()
        assert frame["sample_id"].to_list() == [sample_id(*row[1:]) for row in frame.iter_rows()]


def test_one_source_split_can_serve_two_splits(tmp_path):
    write_jsonl(tmp_path / "a.jsonl", rows(6))
    write_jsonl(tmp_path / "b.jsonl", [{"text": f"b {i}", "label": "x"} for i in range(6)])
    splits = {"train": "a.jsonl", "validation": "b.jsonl", "analysis": "b.jsonl"}
    drawn = prompts(build(block(f"path:{tmp_path}", splits=splits)))
    assert len(drawn["validation"] | drawn["analysis"]) == 6


def test_draw_depends_on_the_seed_not_on_the_order_of_rows(tmp_path, twelve):
    few = {"train": 3, "validation": 2, "analysis": 2}
    backwards = write_jsonl(tmp_path / "back.jsonl", rows(12)[::-1])
    first = build(block(twelve, **few))
    again = build(block(backwards, **few))
    assert all(first[split].equals(again[split]) for split in first)
    assert prompts(build(block(twelve, **few), seed=1)) != prompts(first)


def test_analysis_does_not_depend_on_the_other_sizes(twelve):
    small = build(block(twelve, train=1, validation=1))
    assert small["analysis"].equals(build(block(twelve))["analysis"])


def test_all_that_is_left_trains(twelve):
    splits = build(block(twelve, train="all", validation=2, analysis=3))
    assert len(splits["train"]) == 7
    assert len(set().union(*prompts(splits).values())) == 12
    fixed = build(block(twelve, train=7, validation=2, analysis=3))
    assert all(splits[split].equals(fixed[split]) for split in splits)


def test_sample_id_is_fixed():
    assert sample_id("a prompt", "yes") == "7891150b35912575"


@pytest.mark.bad_input(of="data")
def test_balance_gives_the_remainder_in_sorted_order(tmp_path):
    labels = ["c", "a", "b", "c", "c", "c"]
    source = write_jsonl(tmp_path / "t.jsonl", rows(60, labels))
    splits = build(block(source, balance=True, train=7, validation=2, analysis=3))
    counts = {s: dict(f["target"].value_counts().iter_rows()) for s, f in splits.items()}
    assert counts == {
        "train": {"a": 3, "b": 2, "c": 2},
        "validation": {"a": 1, "b": 1},
        "analysis": {"a": 1, "b": 1, "c": 1},
    }
    with refused("train: 11 rows with the response 'a' wanted, 8 available"):
        build(block(source, balance=True, train=31))


@pytest.mark.bad_input(of="data")
def test_analysis_takes_suitable_prompts_only(twelve, caplog):
    caplog.set_level(logging.INFO)
    even = {f"row number {i}" for i in range(0, 12, 2)}

    def unsuitable(sample, text):
        assert sample == sample_id(text, "yes") or sample == sample_id(text, "no")
        return None if text in even else "too odd"

    splits, skipped = build_splits(
        block(twelve, analysis=6, train=3), seed=0, name="d", unsuitable=unsuitable
    )
    assert prompts(splits)["analysis"] == even
    assert 0 < skipped["too odd"] <= 6
    assert f"d, analysis: {skipped['too odd']} rows skipped: too odd" in caplog.messages
    with refused(
        r"^datasets.d: analysis: 7 rows wanted, 6 available .skipped: 6 too odd.; lower",
    ):
        build(block(twelve, analysis=7), unsuitable=unsuitable)


@pytest.mark.bad_input(of="data")
def test_nothing_left(tmp_path, twelve):
    (tmp_path / "empty.csv").write_text("text,label\n")
    with refused("analysis: 3 rows wanted, 0 available"):
        build(block(f"path:{tmp_path}/empty.csv"))
    with refused("no row is left after the filters; loosen filter"):
        build(block(twelve, balance=True, filter={"min_words": 9}))
    with refused("analysis: 3 rows wanted, 0 available"):
        build(block(twelve, filter={"min_words": 9}))


def test_a_test_split_leaves_analysis_and_validation_as_they_are(twelve):
    dataset = block(twelve, train=4, validation=2, analysis=3)
    without, with_test = build(dataset), build(dataset | {"test": 3})
    assert list(with_test) == ["train", "validation", "analysis", "test"]
    assert without["analysis"].equals(with_test["analysis"])
    assert without["validation"].equals(with_test["validation"])
    assert [len(frame) for frame in with_test.values()] == [4, 2, 3, 3]
    assert len(set().union(*prompts(with_test).values())) == 12


@pytest.mark.parametrize(
    ("changed", "others"),
    [
        ("analysis", {"validation", "test", "train"}),
        ("validation", {"test", "train"}),
        ("test", {"train"}),
        ("train", set()),
        ("label_noise", {"train"}),
    ],
)
def test_a_split_depends_on_the_sizes_of_those_before_it_alone(twelve, changed, others):
    """What its settings say it does not depend on leaves its rows as they are, and else it would not."""
    sizes = {"analysis": 2, "validation": 2, "test": 2, "train": 3, "label_noise": 0.0}
    dataset = block(twelve, **sizes)
    other = {**dataset, changed: 0.7 if changed == "label_noise" else sizes[changed] + 1}
    before, after = build(dataset), build(other)
    for split in ("analysis", "validation", "test", "train"):
        depends = settings_of_split(dataset, split) != settings_of_split(other, split)
        assert depends == (split in {changed, *others})
        if not depends:
            assert before[split].equals(after[split])
    assert any(not before[split].equals(after[split]) for split in before)


@pytest.mark.parametrize(("at_most", "found"), [(3, 3), (8, 8), (20, 8)])
def test_a_test_split_takes_as_many_as_there_are(twelve, at_most, found):
    dataset = block(twelve, analysis=4, test={"at_most": at_most})
    dataset = {key: value for key, value in dataset.items() if key not in ("train", "validation")}
    splits = build(dataset)
    assert [len(splits[split]) for split in ("analysis", "test")] == [4, found]
    assert not prompts(splits)["analysis"] & prompts(splits)["test"]
    none_left = build({**dataset, "analysis": 12})
    assert len(none_left["test"]) == 0


def test_a_test_split_that_is_not_balanced_is_told(tmp_path, caplog):
    few = [{"text": f"row {i}", "label": "rare" if i < 4 else "often"} for i in range(20)]
    source = write_jsonl(tmp_path / "rows.jsonl", few)
    dataset = block(source, analysis=2, test={"at_most": 12}, balance=True)
    dataset = {key: value for key, value in dataset.items() if key not in ("train", "validation")}
    assert sorted(build(dataset)["test"]["target"]) == ["often"] * 6 + ["rare"] * 3
    told = "test: not balanced, since of the response 'rare' there are 3 rows in place of 6; lower at_most"
    assert f"{told} to 6" in caplog.text
    caplog.clear()
    six = build({**dataset, "test": {"at_most": 6}})["test"]
    assert sorted(six["target"]) == ["often"] * 3 + ["rare"] * 3
    assert "balanced" not in caplog.text


@pytest.mark.bad_input(of="data")
def test_a_test_split_that_leaves_no_row_for_training_is_refused(twelve):
    dataset = block(twelve, analysis=4, validation=2, train="all", test={"at_most": 50})
    with refused("train: analysis, test, validation leave no row for it; lower one of them"):
        build(dataset)


def test_a_test_split_of_its_own_file(tmp_path):
    for split in ("train", "dev", "test"):
        write_jsonl(
            tmp_path / f"{split}.jsonl", [{"text": f"{split} {i}", "label": "x"} for i in "ab"]
        )
    splits = {"train": "train.jsonl", "validation": "dev.jsonl", "analysis": "dev.jsonl"}
    dataset = block(
        f"path:{tmp_path}",
        splits=splits | {"test": "test.jsonl"},
        train=2,
        validation=1,
        analysis=1,
        test=2,
    )
    assert prompts(build(dataset))["test"] == {"test a", "test b"}


def test_label_noise_is_in_the_training_responses_only(twelve):
    dataset = block(twelve, train=6, validation=2, analysis=3)
    clean_splits, noisy = build(dataset), build(dataset | {"label_noise": 0.5})
    assert clean_splits["validation"].equals(noisy["validation"])
    assert clean_splits["analysis"].equals(noisy["analysis"])
    columns = ["sample_id", "prompt"]
    assert clean_splits["train"].select(columns).equals(noisy["train"].select(columns))
    changed = clean_splits["train"]["target"] != noisy["train"]["target"]
    assert changed.sum() == 3
    assert build(dataset | {"label_noise": 0.0})["train"].equals(clean_splits["train"])


@pytest.mark.bad_input(of="data")
def test_classes_that_look_the_same_are_not_balanced(tmp_path):
    source = write_jsonl(tmp_path / "t.jsonl", rows(12, ["no", "not yet", "not\u00a0yet"]))
    with refused(r"balance: the responses 'not yet' and 'not\\xa0yet' look"):
        build(block(source, balance=True))
    assert build(block(source))


def test_traces_of_a_wrong_encoding_are_told(tmp_path, caplog):
    text = "text,label\ndon’t go,x\nfilm,y\n"
    (tmp_path / "t.csv").write_bytes(text.encode("cp1252"))
    source = f"path:{tmp_path}/t.csv"
    (frame,) = load_rows(block(source, encoding="latin-1")).values()
    clean(frame, {}, "d")
    assert caplog.messages == [
        "d: 1 rows hold characters that a wrong encoding leaves, such as 'don\\x92t go'; check encoding"
    ]
    caplog.clear()
    (frame,) = load_rows(block(source, encoding="cp1252")).values()
    assert set(clean(frame, {}, "d")["prompt"]) == {"don’t go", "film"}
    assert not caplog.messages


@pytest.mark.bad_input(of="data")
def test_a_misspelt_response_of_the_filter_is_refused(twelve):
    dataset = block(twelve, filter={"targets": ["yes", "No"]}, balance=True)
    message = (
        r"^datasets\.d: filter\.targets: no row .* the response 'No'; left are 'yes'; correct it$"
    )
    with refused(message):
        build(dataset)
    filters = {"targets": ["yes", "no"], "exclude_pattern": "[02468]"}
    with refused("has the response 'no'; left are 'yes'"):
        build(block(twelve, filter=filters, balance=True))
    with refused("filter: no row passes it; loosen it, or correct filter.targets"):
        build(block(twelve, filter={"targets": ["YES"]}, balance=True))


def test_prompts_that_look_the_same_are_the_same(tmp_path):
    variants = ["\u00e9t\u00e9 a b", "e\u0301te\u0301 a b", "\u00e9t\u00e9\u00a0a\u200b b"]
    table = [{"text": text, "label": "x"} for text in variants]
    assert kept(write_jsonl(tmp_path / "t.jsonl", table)) == {min(variants)}
    table[0]["label"] = "y"
    assert kept(write_jsonl(tmp_path / "t.jsonl", table)) == set()
    assert kept(
        write_jsonl(tmp_path / "t.jsonl", [{"text": t, "label": "x"} for t in ("a  b", "a b")])
    ) == {"a  b", "a b"}
    for name, text in zip("abc", variants, strict=True):
        write_jsonl(
            tmp_path / f"{name}.jsonl", [{"text": text, "label": "x"}, {"text": name, "label": "x"}]
        )
    splits = {"train": "a.jsonl", "validation": "b.jsonl", "analysis": "c.jsonl"}
    dataset = block(f"path:{tmp_path}", splits=splits, train=2, validation=1, analysis=1)
    assert prompts(build(dataset)) == {
        "train": {variants[0], "a"},
        "validation": {"b"},
        "analysis": {"c"},
    }


def cleaned(tmp_path, given, **filters):
    (frame,) = load_rows(block(write_jsonl(tmp_path / "t.jsonl", given))).values()
    return clean(frame, filters, "d")


@pytest.mark.parametrize("column", ["text", "label"])
@pytest.mark.parametrize("cell", ["nan", "None", "<NA>", "NULL", r"\N"])
def test_cells_that_were_empty_once_are_told(tmp_path, caplog, column, cell):
    """As ``astype(str)`` of pandas leaves them."""
    assert len(cleaned(tmp_path, [{"text": "1 b", "label": "none"}])) == 1
    assert not caplog.messages
    given = [{"text": "1 b", "label": "x"}, {"text": "2 b", "label": "x", column: cell}]
    assert len(cleaned(tmp_path, given)) == 2
    assert caplog.messages == [
        "d: 1 rows have a prompt or a response that programs write for an empty cell, such as "
        f"{cell!r}; drop them from the file if it was one"
    ]


def test_responses_that_differ_in_case_alone_are_told(tmp_path, caplog):
    given = [{"text": f"{i} b", "label": label} for i, label in enumerate(["no", "yes", "no"])]
    cleaned(tmp_path, given)
    assert not caplog.messages
    cleaned(tmp_path, [*given, {"text": "4 b", "label": "Yes"}], targets=["yes"])
    assert caplog.messages == [
        "d: the responses 'Yes' and 'yes' differ in case alone and count as two; make them one in the "
        "file if they are"
    ]


def told(tmp_path, caplog, rows):
    """Warnings about rows of a prompt and a response."""
    source = write_jsonl(tmp_path / "t.jsonl", [{"text": p, "label": r} for p, r in rows])
    frame = load_rows({"source": source, "prompt": "text", "target": "label"})
    caplog.clear()
    clean(frame["all rows"], {}, "d")
    return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]


@pytest.mark.parametrize("mark", ["<br /><br />", "<BR>", "</p>", "&amp;", "&#39;", "&#x27;"])
def test_marks_of_html_are_told(tmp_path, caplog, mark):
    (line,) = told(tmp_path, caplog, [(f"A film.{mark}It was good", "yes"), ("a < b & c;", "no")])
    assert line.startswith("d: 1 prompts hold marks of HTML, such as " + repr(mark[:6])[:4])
    assert told(tmp_path, caplog, [("I <3 it & so on; 5 <b> 4", "yes")]) == []


@pytest.mark.parametrize(
    ("mark", "kind"),
    [
        ("_x000D_\n", "line ends as Excel writes them, such as '_x000D_'"),
        ("\u00ad", r"soft hyphens or control characters, such as '\xad'"),
        ("\x1b[31m", r"soft hyphens or control characters, such as '\x1b'"),
        ("\x00", r"soft hyphens or control characters, such as '\x00'"),
    ],
)
def test_marks_that_are_no_text_are_told(tmp_path, caplog, mark, kind):
    rows = [(f"A wonder{mark}ful film", "yes"), ("a_x000_ \t tab, a line\r\nend\f", "no")]
    (line,) = told(tmp_path, caplog, rows)
    assert line.startswith(f"d: 1 prompts hold {kind}, which count as words")


@pytest.mark.bad_input(of="data")
def test_rows_that_an_earlier_split_has_are_told_where_they_are_missing(tmp_path):
    """As where one file is named in two ways, or is a copy of another."""
    write_jsonl(tmp_path / "one.jsonl", rows(12))
    write_jsonl(tmp_path / "other.jsonl", [{"text": "elsewhere", "label": "no"}] * 3)
    keys = {"analysis": 1, "validation": 2, "train": 2}
    splits = {"train": "one.jsonl", "validation": "./one.jsonl", "analysis": "other.jsonl"}
    with refused(
        r"validation: 2 .* 0 available \(prompts of its file that are in .*: 12\); .* the same name"
    ):
        build(block(f"path:{tmp_path}", **{**keys, "splits": splits}))
    same = {**splits, "validation": "one.jsonl"}
    found = prompts(build(block(f"path:{tmp_path}", **{**keys, "splits": same})))
    assert len(found["train"] | found["validation"]) == 4


def test_prompts_that_hold_their_response_are_told(tmp_path, caplog):
    """As where all of an instruction, its answer too, stands in one column."""
    whole = [(f"### Instruction: {i}\n### Response: it is {i}", f"it is {i}") for i in range(3)]
    (line,) = told(tmp_path, caplog, whole)
    assert line == (
        "d: 3 of 3 prompts end with their response, such as 'it is 0'; name a column without it, if the "
        "model is to give it"
    )
    by_chance = [("the film was good", "good"), ("the film was bad", "no"), ("so so", "no")]
    assert told(tmp_path, caplog, by_chance) == []


@pytest.mark.parametrize("column", ["prompt", "response"])
def test_lists_that_are_written_as_text_are_told(tmp_path, caplog, column):
    """As pandas writes a column of lists into a csv."""
    rows = [("['a', 'b']", "x"), ("['c']", "y")]
    pairs = rows if column == "prompt" else [pair[::-1] for pair in rows]
    (line,) = told(tmp_path, caplog, pairs)
    assert line.startswith(f"d: every {column} is a list that is written as text, such as \"['")
    assert told(tmp_path, caplog, [*pairs, ("a", "b")]) == []


@pytest.mark.parametrize(
    "keys", [{"prompt": ["text", "more"]}, {"prompt": "text", "system": "more"}]
)
def test_parts_of_a_prompt_that_were_empty_once_are_told(tmp_path, caplog, keys):
    given = [
        {"text": f"row {i}", "more": cell, "label": "x"}
        for i, cell in enumerate(["nan", " nan", "of it", "", "<noinput>"])
    ]
    source = write_jsonl(tmp_path / "rows.jsonl", given)
    load_rows(block(source, **keys))
    assert "column 'more': 3 cells hold 'nan', or the like, which programs write" in caplog.text
    caplog.clear()
    write_jsonl(tmp_path / "rows.jsonl", given[2:4])
    load_rows(block(source, **keys))
    assert "cells hold" not in caplog.text
