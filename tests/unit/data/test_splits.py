import json
import logging

import datasets
import polars as pl
import pytest

from sft_interactions.data.reading import load_rows
from sft_interactions.data.splits import build_splits, clean, sample_id

EVERY = {"train": 6, "validation": 3, "analysis": 3}


def build(dataset, files=None, *, seed=0, unsuitable=lambda *_: None):
    splits, _ = build_splits(dataset, files, seed=seed, name="d", unsuitable=unsuitable)
    return splits


def block(source, **keys):
    return {"source": source, "prompt": "text", "target": "label", **EVERY, **keys}


def rows(count, labels=("no", "yes")):
    return [{"text": f"row number {i}", "label": labels[i % len(labels)]} for i in range(count)]


def write_jsonl(path, table):
    path.write_text("".join(json.dumps(row) + "\n" for row in table), encoding="utf-8")
    return f"path:{path}"


def prompts(splits):
    return {split: set(frame["prompt"]) for split, frame in splits.items()}


@pytest.fixture
def twelve(tmp_path):
    return write_jsonl(tmp_path / "rows.jsonl", rows(12))


def load(source, **keys):
    (frame,) = load_rows(block(source, **keys)).values()
    return [(row["prompt"], row["targets"]) for row in frame.iter_rows(named=True)]


# Reading
def test_every_file_format_reads_alike(tmp_path):
    frame = pl.DataFrame({"text": ["a b", 'c, "d"'], "label": ["x", "y"]})
    frame.write_parquet(tmp_path / "t.parquet")
    frame.write_csv(tmp_path / "t.csv")
    write_jsonl(tmp_path / "t.jsonl", frame.to_dicts())
    (tmp_path / "t.tsv").write_text('text\tlabel\na b\tx\nc, "d"\ty\n')
    expected = [("a b", ["x"]), ('c, "d"', ["y"])]
    for suffix in ("parquet", "csv", "jsonl", "tsv"):
        assert load(f"path:{tmp_path}/t.{suffix}") == expected


def test_tsv_quotation_marks_are_text(tmp_path):
    (tmp_path / "t.tsv").write_text('"half a quote\t1\tid\nwhole "quote"\t0\tid\n')
    names = {"columns": ["text", "label", "id"]}
    assert load(f"path:{tmp_path}/t.tsv", **names) == [
        ('"half a quote', ["1"]),
        ('whole "quote"', ["0"]),
    ]
    with pytest.raises(ValueError, match="has 3 columns, columns names 2"):
        load(f"path:{tmp_path}/t.tsv", columns=["text", "label"])


def test_encoding_and_format_keys(tmp_path):
    (tmp_path / "t.dat").write_bytes("text,label\ncafé,x\n".encode("latin-1"))
    source = f"path:{tmp_path}/t.dat"
    assert load(source, format="csv", encoding="latin-1") == [("café", ["x"])]
    with pytest.raises(ValueError, match=r"t.dat cannot be read as csv.*correct format, encoding"):
        load(source, format="csv")
    with pytest.raises(ValueError, match=r"format of .*t.dat is not known; set format"):
        load(source)


def test_pypi_file_takes_its_format_from_the_member(tmp_path):
    (tmp_path / "extracted").write_text("text,label\na,x\n")
    dataset = block("pypi:p==1", pypi={"members": ["p/rows.csv"]})
    (frame,) = load_rows(dataset, [tmp_path / "extracted"]).values()
    assert frame["prompt"].to_list() == ["a"]
    with pytest.raises(ValueError, match="pypi:p==1 is one file"):
        load_rows(dataset, [])


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
    with pytest.raises(ValueError, match="is a folder; name a file in it"):
        load(f"path:{tmp_path}")
    with pytest.raises(
        ValueError, match=r"there is no file .*absent.jsonl.*correct source or splits"
    ):
        build(dataset | {"splits": splits | {"train": "absent.jsonl"}})


def classes():
    features = datasets.Features(
        {
            "text": datasets.Value("string"),
            "label": datasets.List(datasets.ClassLabel(names=["no", "yes"])),
        }
    )
    table = {"text": ["a", "b", "c"], "label": [[0], [1], [0, 1]]}
    return datasets.Dataset.from_dict(table, features=features)


def test_saved_datasets_with_class_names(tmp_path):
    expected = [("a", ["no"]), ("b", ["yes"]), ("c", ["no", "yes"])]
    classes().save_to_disk(tmp_path / "one")
    assert load(f"path:{tmp_path}/one", target_names="features") == expected
    datasets.DatasetDict(train=classes(), test=classes()).save_to_disk(tmp_path / "two")
    splits = {"train": "train", "validation": "test", "analysis": "test"}
    source = f"path:{tmp_path}/two"
    assert list(load_rows(block(source, splits=splits))) == ["train", "test"]
    with pytest.raises(ValueError, match="has the splits train, test; say under splits"):
        load(source)
    with pytest.raises(ValueError, match=r"has no split dev .it has: train, test.; correct splits"):
        load_rows(block(source, splits=splits | {"train": "dev"}))


def test_hub_asks_for_subset_revision_and_split(monkeypatch):
    asked = []

    def load_dataset(*arguments, **keys):
        asked.append((*arguments, keys))
        return datasets.DatasetDict(train=classes()) if keys["split"] is None else classes()

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert len(load("hub:org/d@v1", subset="s", target_names="features")) == 3
    splits = {"train": "train", "validation": "dev", "analysis": "test"}
    assert list(load_rows(block("hub:org/d", splits=splits))) == ["train", "dev", "test"]
    assert asked[:2] == [
        ("org/d", "s", {"revision": "v1", "split": None}),
        ("org/d", None, {"revision": None, "split": "train"}),
    ]


def test_hub_names_the_mend_and_is_never_a_local_folder(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError("no route")

    monkeypatch.setattr(datasets, "load_dataset", refuse)
    with pytest.raises(ValueError, match=r"hub did not give hub:org/d@v1.*no route.*use path:"):
        load("hub:org/d@v1")
    with pytest.raises(ValueError, match=r"there is a local .*write path:"):
        load(f"hub:{tmp_path}")


def test_bad_lines_and_columns_are_named(tmp_path):
    path = tmp_path / "t.jsonl"
    for line in ("{", "[1]"):
        path.write_text('{"text": "a", "label": "x"}\n' + line + "\n")
        with pytest.raises(ValueError, match=r"t.jsonl, line 2 is not a JSON object"):
            load(f"path:{path}")
    write_jsonl(path, [{"text": "a", "label": "x"}, {"text": 3, "label": "x"}])
    with pytest.raises(ValueError, match="column text mixes types"):
        load(f"path:{path}")
    write_jsonl(path, [{"text": "a", "label": {"b": 1}}])
    with pytest.raises(ValueError, match=r"^datasets.d: target: column 'label' is Struct"):
        build(block(f"path:{path}"))
    with pytest.raises(ValueError, match="prompt: there is no column 'x'; name one of label, text"):
        load(f"path:{path}", prompt="x")


def test_an_array_of_objects(tmp_path):
    path = tmp_path / "t.json"
    path.write_text(json.dumps([{"text": "a", "label": "x"}, {"text": "b", "label": "y"}]))
    assert load(f"path:{path}") == [("a", ["x"]), ("b", ["y"])]
    path.write_text('[{"text": "a", "label": "x"}, 3]')
    with pytest.raises(ValueError, match=r"t\.json, entry 2 is not a JSON object; mend it"):
        load(f"path:{path}")
    path.write_text('{"text": "a"}')
    with pytest.raises(ValueError, match=r"t\.json is not an array of objects"):
        load(f"path:{path}")
    path.write_text("[")
    with pytest.raises(ValueError, match=r"t\.json is not JSON: .*or set format"):
        load(f"path:{path}")


# The forms of the paper's data sets; the rows are made up.
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


def test_unilaw_form(tmp_path):
    rows = [{"instruction": "请回答。", "input": "甲向乙借款。\nA: A.是\nB: B.否", "answer": "AB"}]
    source = write_jsonl(tmp_path / "t.jsonl", rows)
    found = load(source, prompt="input", target="answer")
    assert found == [(rows[0]["input"], ["AB"])]


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
    with pytest.raises(ValueError, match="prompt: there is no column 'input'"):
        load(source, prompt=["instruction", "input"], target="response")


# Responses
def test_target_names_as_list_or_file(tmp_path):
    source = write_jsonl(
        tmp_path / "t.jsonl", [{"text": "a", "label": 1}, {"text": "b", "label": 0}]
    )
    expected = [("a", ["yes"]), ("b", ["no"])]
    assert load(source, target_names=["no", "yes"]) == expected
    (tmp_path / "names.txt").write_text("no\nyes \n")
    assert load(source, target_names=f"path:{tmp_path}/names.txt") == expected
    with pytest.raises(ValueError, match="target: '1' is no class id from 0 to 0; correct"):
        load(source, target_names=["only"])
    with pytest.raises(ValueError, match=r"target_names: .*absent.txt cannot be read"):
        load(source, target_names="path:absent.txt")
    with pytest.raises(ValueError, match="source carries no class names"):
        load(source, target_names="features")


def test_target_separator(tmp_path):
    cells = ["0", "0,1", " 1 ", "", None]
    source = write_jsonl(tmp_path / "t.jsonl", [{"text": "a", "label": c} for c in cells])
    responses = [r for _, r in load(source, target_separator=",", target_names=["no", "yes"])]
    assert responses == [["no"], ["no", "yes"], ["yes"], [], []]


# Filters
def kept(source, **filters):
    (frame,) = load_rows(block(source, filter=filters)).values()
    return set(clean(frame, filters, "d")["prompt"])


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
    with pytest.raises(ValueError, match="exclude_pattern is no regular expression"):
        kept(source, exclude_pattern="(")
    with pytest.raises(ValueError, match="min_value: column 'label' holds 'x', not a number"):
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
    with pytest.raises(
        ValueError, match="validation: 2 rows wanted, 1 available; lower validation"
    ):
        build(dataset | {"validation": 2})


# Drawing
def test_one_table_is_divided_without_overlap(twelve):
    splits = build(block(twelve))
    assert {split: len(frame) for split, frame in splits.items()} == EVERY
    assert len(set().union(*prompts(splits).values())) == 12
    for frame in splits.values():
        assert frame.schema == dict.fromkeys(["sample_id", "prompt", "target"], pl.String)
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
    with pytest.raises(
        ValueError, match="train: 11 rows with the response 'a' wanted, 8 available"
    ):
        build(block(source, balance=True, train=31))


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
    with pytest.raises(
        ValueError,
        match=r"^datasets.d: analysis: 7 rows wanted, 6 available .skipped: 6 too odd.; lower",
    ):
        build(block(twelve, analysis=7), unsuitable=unsuitable)


def test_nothing_left(tmp_path, twelve):
    (tmp_path / "empty.csv").write_text("text,label\n")
    with pytest.raises(ValueError, match="analysis: 3 rows wanted, 0 available"):
        build(block(f"path:{tmp_path}/empty.csv"))
    with pytest.raises(ValueError, match="no row is left after the filters; loosen filter"):
        build(block(twelve, balance=True, filter={"min_words": 9}))
    with pytest.raises(ValueError, match="analysis: 3 rows wanted, 0 available"):
        build(block(twelve, filter={"min_words": 9}))
