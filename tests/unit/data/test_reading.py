import json

import datasets
import polars as pl
import pytest
from tiny_datasets import block, write_jsonl

from sft_interactions.data.reading import load_rows


def load(source, **keys):
    (frame,) = load_rows(block(source, **keys)).values()
    return [(row["prompt"], row["targets"]) for row in frame.iter_rows(named=True)]


def classes():
    features = datasets.Features(
        {
            "text": datasets.Value("string"),
            "label": datasets.List(datasets.ClassLabel(names=["no", "yes"])),
        }
    )
    table = {"text": ["a", "b", "c"], "label": [[0], [1], [0, 1]]}
    return datasets.Dataset.from_dict(table, features=features)


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


def test_hub_suggests_a_fix_and_is_never_a_local_folder(tmp_path, monkeypatch):
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
    with pytest.raises(ValueError, match=r"^target: column 'label' is Struct"):
        load(f"path:{path}")
    with pytest.raises(ValueError, match="prompt: there is no column 'x'; name one of label, text"):
        load(f"path:{path}", prompt="x")


def test_an_array_of_objects(tmp_path):
    path = tmp_path / "t.json"
    path.write_text(json.dumps([{"text": "a", "label": "x"}, {"text": "b", "label": "y"}]))
    assert load(f"path:{path}") == [("a", ["x"]), ("b", ["y"])]
    path.write_text('[{"text": "a", "label": "x"}, 3]')
    with pytest.raises(ValueError, match=r"t\.json, entry 2 is not a JSON object; correct it"):
        load(f"path:{path}")
    path.write_text('{"text": "a"}')
    with pytest.raises(ValueError, match=r"t\.json is not an array of objects"):
        load(f"path:{path}")
    path.write_text("[")
    with pytest.raises(ValueError, match=r"t\.json is not JSON: .*or set format"):
        load(f"path:{path}")


def test_unilaw_form(tmp_path):
    rows = [{"instruction": "请回答。", "input": "甲向乙借款。\nA: A.是\nB: B.否", "answer": "AB"}]
    source = write_jsonl(tmp_path / "t.jsonl", rows)
    found = load(source, prompt="input", target="answer")
    assert found == [(rows[0]["input"], ["AB"])]


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
