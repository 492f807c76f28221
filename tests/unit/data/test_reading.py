import bz2
import datetime
import gzip
import json
import lzma
import re
from pathlib import Path

import datasets
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from bad_input import marked, refused
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


def test_other_braces_of_an_instruction_are_text(tmp_path):
    rows = [{"prompt": "a", "label": "x"}]
    source = write_jsonl(tmp_path / "t.jsonl", rows)
    asked = 'Answer as {"label": "..."} with {reason}.\n{prompt}'
    assert load(source, prompt="prompt", instruction=asked) == [("a", ["x"])]


@pytest.mark.parametrize("column", [0, 1])
def test_categories_are_text(tmp_path, column):
    """As pandas writes a column of its type category."""
    rows = pl.DataFrame({"text": ["b", "a", "b"], "label": ["y", "x", "y"]})
    name = rows.columns[column]
    rows.cast({name: pl.Categorical}).write_parquet(tmp_path / "t.parquet")
    assert pl.read_parquet(tmp_path / "t.parquet")[name].dtype == pl.Categorical
    expected = [("b", ["y"]), ("a", ["x"]), ("b", ["y"])]
    assert load(f"path:{tmp_path}/t.parquet") == expected


@pytest.mark.parametrize("cell", ['"quoted"', '""', '""a""', 'x ""y""'])
def test_a_tsv_whose_marks_are_not_those_of_a_program_is_text(tmp_path, cell):
    """Either no field has a mark inside, or some field has one that would have been doubled."""
    (tmp_path / "t.tsv").write_text(f"text\tlabel\n{cell}\tx\nb\ty\n")
    assert load(f"path:{tmp_path}/t.tsv")[0] == (cell, ["x"])
    (tmp_path / "t.tsv").write_text('text\tlabel\n"a ""b"""\tx\na "b"\ty\n')
    assert load(f"path:{tmp_path}/t.tsv")[0] == ('"a ""b"""', ["x"])


@pytest.mark.parametrize(
    "rows",
    [
        '"a"\tx\nb\ty\n"c"\tz\n',
        '"a"\tx\n',
        '"\tx\n"\ty\n',
        '"a"\tx\n"b"\ty\nNAN\tz\n',
        '"a \\"b\\""\tx\nc "d"\ty\n',
        '"C:\\"\tx\nb\ty\n',
    ],
)
def test_a_tsv_with_some_fields_between_marks_is_text(tmp_path, rows):
    (tmp_path / "t.tsv").write_text(f"text\tlabel\n{rows}")
    pairs = [row.split("\t") for row in rows.splitlines()]
    assert load(f"path:{tmp_path}/t.tsv") == [(text, [label]) for text, label in pairs]


@pytest.mark.bad_input(of="data")
def test_tsv_quotation_marks_are_text(tmp_path):
    (tmp_path / "t.tsv").write_text('"half a quote\t1\tid\nwhole "quote"\t0\tid\n')
    names = {"columns": ["text", "label", "id"]}
    assert load(f"path:{tmp_path}/t.tsv", **names) == [
        ('"half a quote', ["1"]),
        ('whole "quote"', ["0"]),
    ]
    with refused("has 3 columns, columns names 2"):
        load(f"path:{tmp_path}/t.tsv", columns=["text", "label"])


def test_a_quoted_tsv_reads_as_a_csv(tmp_path):
    frame = pl.DataFrame({"text": ["a b", 'He said "hi"', "x\ty"], "label": ["x", "y", "z"]})
    frame.write_csv(tmp_path / "t.tsv", separator="\t")
    expected = [(row["text"], [row["label"]]) for row in frame.to_dicts()]
    assert load(f"path:{tmp_path}/t.tsv", quoted=True) == expected


def test_the_recipe_for_local_files_of_goemotions(tmp_path):
    """The block in docs/data.md, with files in the form of the original release."""
    text = (Path(__file__).parents[3] / "docs" / "data.md").read_text(encoding="utf-8")
    (recipe,) = re.findall(r"## GoEmotions from local files\n.*?```yaml\n(.*?)```", text, re.DOTALL)
    dataset = yaml.safe_load(recipe.replace("path:data/goemotions", f"path:{tmp_path}"))
    (tmp_path / "labels.txt").write_text("admiration\namusement\nneutral\n")
    rows = [
        '"Oh ""really"" now"\t1\tabc\n',
        '"""Dude. Stop."" he said"\t0,2\tdef\n',
        "So\t2\tghi\n",
    ]
    for name in set(dataset["splits"].values()):
        (tmp_path / name).write_text("".join(rows))
    frames = load_rows(dataset)
    assert set(frames) == set(dataset["splits"].values())
    for frame in frames.values():
        found = [(one["prompt"], one["targets"]) for one in frame.iter_rows(named=True)]
        assert found == [
            ('Oh "really" now', ["amusement"]),
            ('"Dude. Stop." he said', ["admiration", "neutral"]),
            ("So", ["neutral"]),
        ]


@pytest.mark.bad_input(of="data")
def test_encoding_and_format_keys(tmp_path):
    (tmp_path / "t.dat").write_bytes("text,label\ncafé,x\n".encode("latin-1"))
    source = f"path:{tmp_path}/t.dat"
    assert load(source, format="csv", encoding="latin-1") == [("café", ["x"])]
    with refused(r"t.dat, line 2 is not in utf-8: .*correct encoding, or save"):
        load(source, format="csv")
    with refused(r"format of .*t.dat is not known; set format"):
        load(source)


@pytest.mark.bad_input(of="data")
def test_pypi_file_takes_its_format_from_the_member(tmp_path):
    (tmp_path / "extracted").write_text("text,label\na,x\n")
    dataset = block("pypi:p==1", pypi={"members": ["p/rows.csv"]})
    (frame,) = load_rows(dataset, [tmp_path / "extracted"]).values()
    assert frame["prompt"].to_list() == ["a"]
    with refused("pypi:p==1 is one file"):
        load_rows(dataset, [])


@pytest.mark.bad_input(of="data")
def test_saved_datasets_with_class_names(tmp_path):
    expected = [("a", ["no"]), ("b", ["yes"]), ("c", ["no", "yes"])]
    classes().save_to_disk(tmp_path / "one")
    assert load(f"path:{tmp_path}/one", target_names="features") == expected
    datasets.DatasetDict(train=classes(), test=classes()).save_to_disk(tmp_path / "two")
    splits = {"train": "train", "validation": "test", "analysis": "test"}
    source = f"path:{tmp_path}/two"
    assert list(load_rows(block(source, splits=splits))) == ["train", "test"]
    with refused("has the splits train, test; say under splits"):
        load(source)
    with refused(r"has no split dev .it has: train, test.; correct splits"):
        load_rows(block(source, splits=splits | {"train": "dev"}))


@pytest.mark.bad_input(of="data")
def test_class_names_in_a_parquet_file(tmp_path, caplog):
    """As the files of the hub's data sets have them."""
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])}
    )
    rows = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [1, 0]}, features=features)
    path = tmp_path / "rows[1].parquet"
    rows.to_parquet(path)
    assert load(f"path:{path}", target_names="features") == [("a", ["yes"]), ("b", ["no"])]
    assert load(f"path:{path}", target_names=["n", "y"]) == [("a", ["y"]), ("b", ["n"])]
    assert caplog.text == ""
    assert load(f"path:{path}") == [("a", ["1"]), ("b", ["0"])]
    assert "whose names are known (no, ...); set target_names: features" in caplog.text
    caplog.clear()
    classes().to_parquet(path)
    assert load(f"path:{path}", target_names="features")[2] == ("c", ["no", "yes"])
    # What another program has made text, with the notes left as they were.
    table = pq.read_table(path)
    place = table.schema.get_field_index("label")
    text = table.set_column(place, "label", pa.array(["x", "y", "z"]))
    pq.write_table(text.replace_schema_metadata(table.schema.metadata), path)
    assert load(f"path:{path}")[0] == ("a", ["x"])
    assert caplog.text == ""
    with refused("the source carries no class names"):
        load(f"path:{path}", target_names="features")


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


@pytest.mark.bad_input(of="data")
def test_hub_suggests_a_fix_and_is_never_a_local_folder(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError("no route")

    monkeypatch.setattr(datasets, "load_dataset", refuse)
    with refused(r"hub did not give hub:org/d@v1.*no route.*use path:"):
        load("hub:org/d@v1")
    with refused(r"there is a local .*write path:"):
        load(f"hub:{tmp_path}")


@pytest.mark.bad_input(of="data")
def test_bad_lines_and_columns_are_named(tmp_path):
    path = tmp_path / "t.jsonl"
    for line in ("{", "[1]"):
        path.write_text('{"text": "a", "label": "x"}\n' + line + "\n")
        with refused(r"t.jsonl, line 2 is not a JSON object"):
            load(f"path:{path}")
    write_jsonl(path, [{"text": "a", "label": "x"}, {"text": 3, "label": "x"}])
    with refused("column text mixes types"):
        load(f"path:{path}")
    write_jsonl(path, [{"text": "a", "label": {"b": 1}}])
    with refused(r"^target: column 'label' is Struct"):
        load(f"path:{path}")
    with refused("prompt: there is no column 'x'; name one of label, text"):
        load(f"path:{path}", prompt="x")


@pytest.mark.bad_input(of="data")
def test_an_array_of_objects(tmp_path):
    path = tmp_path / "t.json"
    path.write_text(json.dumps([{"text": "a", "label": "x"}, {"text": "b", "label": "y"}]))
    assert load(f"path:{path}") == [("a", ["x"]), ("b", ["y"])]
    path.write_text('[{"text": "a", "label": "x"}, 3]')
    with refused(r"t\.json, entry 2 is not a JSON object; correct it"):
        load(f"path:{path}")
    path.write_text('{"text": "a"}')
    with refused(r"t\.json is not an array of objects"):
        load(f"path:{path}")
    for content, fix in (
        (
            '{"data": [{"text": "a"}]}',
            "write the array that stands under 'data' into a file of its own",
        ),
        ('{"text": {"0": "a"}, "label": {"0": "x"}}', "write it row by row"),
    ):
        path.write_text(content)
        with refused(rf"is not an array of objects; .*{fix}"):
            load(f"path:{path}")
    path.write_text('{"text": "a", "label": "x"}\n{"text": "b", "label": "y"}\n')
    with refused(r"t\.json has an object a line, .*; set format to jsonl"):
        load(f"path:{path}")
    path.write_text("[")
    with refused(r"t\.json is not JSON: .*or set format"):
        load(f"path:{path}")


def test_unilaw_form(tmp_path):
    rows = [{"instruction": "请回答。", "input": "甲向乙借款。\nA: A.是\nB: B.否", "answer": "AB"}]
    source = write_jsonl(tmp_path / "t.jsonl", rows)
    found = load(source, prompt="input", target="answer")
    assert found == [(rows[0]["input"], ["AB"])]


@pytest.mark.bad_input(of="data")
def test_target_names_as_list_or_file(tmp_path):
    source = write_jsonl(
        tmp_path / "t.jsonl", [{"text": "a", "label": 1}, {"text": "b", "label": 0}]
    )
    expected = [("a", ["yes"]), ("b", ["no"])]
    assert load(source, target_names=["no", "yes"]) == expected
    (tmp_path / "names.txt").write_text("no\nyes \n")
    assert load(source, target_names=f"path:{tmp_path}/names.txt") == expected
    with refused("target: '1' is no class id from 0 to 0; correct"):
        load(source, target_names=["only"])
    with refused(r"target_names: .*absent.txt cannot be read"):
        load(source, target_names="path:absent.txt")
    with refused("source carries no class names"):
        load(source, target_names="features")


@pytest.mark.parametrize(
    ("ids", "tells"), [([1, 2], True), ([2, 0], False), ([1, 0], False), (["00", "01"], False)]
)
def test_ids_that_may_count_from_one_are_told(tmp_path, caplog, ids, tells):
    source = write_jsonl(tmp_path / "t.jsonl", [{"text": "a", "label": i} for i in ids])
    names = ["no", "maybe", "yes"]
    assert [response for _, response in load(source, target_names=names)] == [
        [names[int(i)]] for i in ids
    ]
    assert ("no row has the class id 0, 'no'; if ids count from 1" in caplog.text) == tells


def test_target_separator(tmp_path):
    cells = ["0", "0,1", " 1 ", "", None]
    source = write_jsonl(tmp_path / "t.jsonl", [{"text": "a", "label": c} for c in cells])
    responses = [r for _, r in load(source, target_separator=",", target_names=["no", "yes"])]
    assert responses == [["no"], ["no", "yes"], ["yes"], [], []]


GOOD = [("café x", ["yes"]), ("b", ["no"])]
READABLE = {
    "csv with a byte order mark": ("t.csv", "\ufefftext,label\ncafé x,yes\nb,no\n", {}),
    "csv with line ends of Windows": ("t.csv", "text,label\r\ncafé x,yes\r\nb,no\r\n", {}),
    "csv with line ends of an old Mac": ("t.csv", "text,label\rcafé x,yes\rb,no\r", {}),
    "csv with empty lines": ("t.csv", "text,label\n\ncafé x,yes\n\nb,no\n\n", {}),
    "csv without a last line end": ("t.csv", "text,label\ncafé x,yes\nb,no", {}),
    "csv with further columns": ("t.csv", "a,a,text,label\n1,2,café x,yes\n,,b,no\n", {}),
    "csv with blanks": ("t.csv", "text,label\n café x\u00a0, yes\nb\u200b,no\u200f\n", {}),
    "tsv with a byte order mark": ("t.tsv", "\ufefftext\tlabel\r\ncafé x\tyes\r\nb\tno\r\n", {}),
    "jsonl with a byte order mark": (
        "t.jsonl",
        '\ufeff{"text": "café x", "label": "yes"}\r\n\r\n{"text": "b", "label": "no"}',
        {},
    ),
    "jsonl with line separators": (
        "t.jsonl",
        '{"text": "café x", "label": "yes\\u2028"}\n{"text": "\u2028b", "label": "no"}\n',
        {},
    ),
    "json with a byte order mark": (
        "t.json",
        '\ufeff[{"text": "café x", "label": "yes"}, {"text": "b", "label": "no"}]',
        {},
    ),
    "class ids as text": (
        "t.csv",
        "text,label\ncafé x,1\nb, 0 \n",
        {"target_names": ["no", "yes"]},
    ),
    "class names with blanks": (
        "t.csv",
        "text,label\ncafé x,1\nb,0\n",
        {"target_names": [" no", "yes\u00a0"]},
    ),
    "a whole emoji in halves": (
        "t.jsonl",
        '{"text": "\\u0063\\u0061\\u0066\\u00e9 x", "label": "yes", "other": "\\ud83d"}\n'
        '{"text": "b", "label": "no"}\n',
        {},
    ),
}


@pytest.mark.parametrize(("name", "text", "keys"), READABLE.values(), ids=READABLE)
def test_files_that_are_read_as_they_are_meant(tmp_path, name, text, keys):
    (tmp_path / name).write_text(text, encoding="utf-8", newline="")
    assert load(f"path:{tmp_path / name}", **keys) == GOOD


def test_brackets_in_a_name_are_no_pattern(tmp_path):
    """Polars takes them for one, and reads the other file."""
    folder = tmp_path / "data [2]"
    folder.mkdir()
    for name, column in (("rows[1].parquet", "text"), ("rows1.parquet", "other")):
        pl.DataFrame({column: ["a"], "label": ["x"]}).write_parquet(folder / name)
    assert load(f"path:{folder}/rows[1].parquet") == [("a", ["x"])]


def test_line_ends_and_quotation_marks_inside_of_fields(tmp_path):
    text = 'text,label\n"two\nlines, ""quoted""",x\n5" wide,y\n"",z\n'
    (tmp_path / "t.csv").write_text(text, newline="")
    assert load(f"path:{tmp_path}/t.csv") == [
        ('two\nlines, "quoted"', ["x"]),
        ('5" wide', ["y"]),
        ("", ["z"]),
    ]


def test_a_blank_before_a_mark_inside_of_a_field(tmp_path):
    """Programs quote such a field as a whole, and double its marks."""
    cells = [' "a", "b"', ' "c" ', 'd, "e"', '5 "f"']
    frame = pl.DataFrame({"text": cells, "label": ["x"] * 4})
    frame.write_csv(tmp_path / "t.csv")
    assert load(f"path:{tmp_path}/t.csv") == [(cell.strip(), ["x"]) for cell in cells]


def test_text_is_kept_but_at_its_ends(tmp_path):
    text = "\u200f a\u200f\u00a0\u200bb \x00c\td e\u0301 👨‍👩‍👧\u200b\u2066"
    source = write_jsonl(tmp_path / "t.jsonl", [{"text": text, "label": "\ufeffyes\u200e"}])
    assert load(source) == [("a\u200f\u00a0\u200bb \x00c\td e\u0301 👨‍👩‍👧", ["yes"])]


UTF_16 = "text,label\ncafé x,yes\nb,no\n".encode("utf-16")
LATIN = "text,label\nb,no\ncafé x,yes\n".encode("latin-1")
REFUSED = {
    "csv in UTF-16": ("t.csv", UTF_16, {}, r"t.csv is in UTF-16, not in utf-8; save it as UTF-8"),
    "csv in Latin-1": ("t.csv", LATIN, {}, "t.csv, line 3 is not in utf-8: .*correct encoding"),
    "csv in UTF-8, as Latin-1": (
        "t.csv",
        "text,label\ncafé,yes\n",
        {"encoding": "latin-1"},
        "t.csv is in UTF-8, not in latin-1; correct encoding",
    ),
    "csv in UTF-8, as a page of DOS": (
        "t.csv",
        "text,label\ncafé,yes\n",
        {"encoding": "cp437"},
        "t.csv is in UTF-8, not in cp437; correct encoding",
    ),
    "csv in UTF-8, as GBK": (
        "t.csv",
        "text,label\n中国,好\n",
        {"encoding": "gbk"},
        "t.csv is in UTF-8, not in gbk; correct encoding",
    ),
    "an encoding of other things than text": (
        "t.csv",
        "text,label\na,b\n",
        {"encoding": "rot13"},
        "t.csv: rot13 is no encoding of text; correct",
    ),
    "columns of a jsonl": (
        "t.jsonl",
        '{"text": "a", "label": "x"}\n',
        {"columns": ["label", "text"]},
        "columns is for csv and tsv files, and .*t.jsonl is none; drop columns",
    ),
    "encoding of a json": (
        "t.json",
        '[{"text": "a", "label": "x"}]',
        {"encoding": "latin-1"},
        "encoding is for csv and tsv files, and .*t.json is none; drop encoding",
    ),
    "a header of other names under columns": (
        "t.tsv",
        "sentence\tlabel\na\tx\n",
        {"columns": ["text", "label"]},
        r"t.tsv: its first line holds the names of the columns \('label'\); drop columns, or that line",
    ),
    "a header in capitals under columns": (
        "t.csv",
        "Text,Class \na,x\n",
        {"columns": ["text", "label"]},
        r"its first line holds the names of the columns \('Text'\)",
    ),
    "no encoding": (
        "t.csv",
        "text,label\na,b\n",
        {"encoding": "utf-9"},
        "no encoding utf-9; correct",
    ),
    "csv with semicolons": (
        "t.csv",
        "text;label\na;b\n",
        {},
        "no column 'text'; name one of text;lab",
    ),
    "csv with blanks in its header": (
        "t.csv",
        "text, label\na,b\n",
        {},
        "no column 'label'; name one of ' label', text",
    ),
    "csv with a byte order mark that the encoding keeps": (
        "t.csv",
        b"\xff\xfe" + "text,label\na,b\n".encode("utf-16-le"),
        {"encoding": "utf-16-le"},
        r"no column 'text'; name one of label, '\\ufefftext'",
    ),
    "csv without a header": ("t.csv", "a,b\nc,d\n", {}, "no column 'text'; name one of a, b"),
    "csv with a field too few": ("t.csv", "text,label\na,x\nb\n", {}, "t.csv, line 3 has 1 fields"),
    "csv with a field too many": (
        "t.csv",
        "text,label\na, b,x\n",
        {},
        "t.csv, line 2 has 3 fields",
    ),
    "csv with an open mark": (
        "t.csv",
        'text,label\n"a,x\nb,y\n',
        {},
        "t.csv, line 3 cannot be read: unexpected end of data; correct its quotation marks",
    ),
    "csv with a mark in the middle": (
        "t.csv",
        'text,label\n"a" b,x\n',
        {},
        "t.csv, line 2 cannot be read: .* expected after",
    ),
    "csv with two open marks": ("t.csv", 'text,label\n"a,x\n"b,y\n', {}, "t.csv, line 3 cannot be"),
    "csv with a column twice": (
        "t.csv",
        "text,label,text\na,x,b\n",
        {},
        "t.csv has 2 columns named 'text'; rename all but one",
    ),
    "csv with a blank before a mark": (
        "t.csv",
        'text,label\n"good, really", "positive"\n',
        {},
        "t.csv, line 2: a blank stands before the quotation mark of '\"positive\"'; drop the blank",
    ),
    "csv with a blank before a mark in its header": (
        "t.csv",
        '"text",\t"label"\n"good","positive"\n',
        {},
        "t.csv, line 1: a blank stands before the quotation mark of '\"label\"'; drop the blank",
    ),
    "csv with a blank before a mark at the end of a long row": (
        "t.csv",
        'text,label\r\n"a\r\nb, ""c""", "x" \r\n',
        {},
        "t.csv, line 3: a blank stands before the quotation mark of '\"x\"'; drop the blank",
    ),
    "quoted tsv with a blank before a mark": (
        "t.tsv",
        'text\tlabel\na\t "x"\n',
        {"quoted": True},
        "t.tsv, line 2: a blank stands before the quotation mark of '\"x\"'; drop the blank",
    ),
    "tsv of which all fields are quoted": (
        "t.tsv",
        '"text"\t"label"\n"a"\t"x"\n"b"\t"y"\n',
        {},
        "t.tsv, line 1: '\"text\"' stands between quotation marks, as do all .*: set it, or save .* csv",
    ),
    "tsv without names of which all texts are quoted": (
        "t.tsv",
        '1\t"a"\n2\t"b"\n',
        {"columns": ["label", "text"]},
        "t.tsv, line 1: '\"a\"' stands between quotation marks, as do all .* quoted: true: set it",
    ),
    "tsv of a quoted column with numbers and gaps": (
        "t.tsv",
        'text\tlabel\n"a"\tx\nNA\ty\n\tz\n-5.5e3\tx\n"b c"\ty\n',
        {},
        "t.tsv, line 2: '\"a\"' stands between quotation marks, as do all .* quoted: true: set it",
    ),
    "tsv as R writes it": (
        "t.tsv",
        'text\tlabel\nplain\tx\n"He said \\"hi\\""\ty\n',
        {},
        r"t.tsv, line 3: .* after backslashes inside, as R writes a field; save .* csv, or with .* quoted",
    ),
    "csv with quotation marks as tsv": (
        "t.tsv",
        'text\tlabel\n"a\nb"\tx\n',
        {},
        "line 2 has 1 fields",
    ),
    "tsv as pandas writes it": (
        "t.tsv",
        'text\tlabel\nplain\tx\n"He said ""hi"" to me"\ty\n',
        {},
        r"t.tsv, line 3: .* doubled inside, as pandas .*; in tsv .* quoted: true: set it, or save .*",
    ),
    "tsv that is not quoted, as if it were": (
        "t.tsv",
        'text\tlabel\n"Hi" he said\tx\n',
        {"quoted": True},
        "t.tsv, line 2 cannot be read: .*; correct its quotation marks, or drop quoted if they are text",
    ),
    "quoted for csv": (
        "t.csv",
        "text,label\na,x\n",
        {"quoted": True},
        "quoted is for tsv files, and .*t.csv is csv, always read so; drop quoted",
    ),
    "quoted for jsonl": (
        "t.jsonl",
        '{"text": "a", "label": "x"}\n',
        {"quoted": True},
        "quoted is for csv and tsv files, and .*t.jsonl is none; drop quoted",
    ),
    "tsv of one field that is quoted and one that need not be": (
        "t.tsv",
        'text\tlabel\n"a"\tx\n""""\ty\n',
        {},
        "t.tsv, line 3: .* has them doubled inside",
    ),
    "an empty jsonl": ("t.jsonl", "\n", {}, "t.jsonl is empty; name another file"),
    "an empty json": ("t.json", "[]", {}, "t.json is empty; name another file"),
    "an empty csv": ("t.csv", "\n", {}, "t.csv is empty; name another file"),
    "jsonl in Latin-1": (
        "t.jsonl",
        b'{"text": "a", "label": "x"}\n{"text": "\xe9", "label": "x"}\n',
        {},
        "t.jsonl, line 2 is not in utf-8",
    ),
    "jsonl in UTF-16": ("t.jsonl", '{"text": "a"}'.encode("utf-16"), {}, "t.jsonl is in UTF-16"),
    "jsonl with commas": (
        "t.jsonl",
        '{"text": "a", "label": "x"},\n',
        {},
        "t.jsonl, line 1 is not a JSON object: Extra data",
    ),
    "jsonl with a trailing comma": (
        "t.jsonl",
        '{"text": "a", "label": "x"}\n{"text": "a", "label": "x",}\n',
        {},
        "t.jsonl, line 2 is not a JSON object",
    ),
    "an array as jsonl": (
        "t.jsonl",
        '[{"text": "a", "label": "x"}]',
        {},
        "t.jsonl, line 1 is not a JSON object; correct it, or set format to json",
    ),
    "a key twice": (
        "t.jsonl",
        '{"text": "a", "label": "x", "label": "y"}',
        {},
        "t.jsonl, line 1 is not a JSON object: the key 'label' is there more than once",
    ),
    "a key twice in an array": (
        "t.json",
        '[{"text": "a", "text": "b", "label": "x"}]',
        {},
        "t.json is not JSON: the key 'text' is there more than once",
    ),
    "half an emoji": (
        "t.jsonl",
        '{"text": "a", "label": "x"}\n{"text": "b \\ud83d", "label": "x"}\n',
        {},
        "t.jsonl, line 2: column text has half a character",
    ),
    "half an emoji in an array": (
        "t.json",
        '[{"text": "a", "label": ["x", "\\ude00"]}]',
        {},
        "t.json, entry 1: column label has half a character",
    ),
    "numbers and text": (
        "t.jsonl",
        '{"text": "a", "label": 1}\n{"text": "b", "label": null}\n{"text": "b", "label": "1"}\n',
        {},
        "t.jsonl, line 3: column label mixes types: text after a number; correct it",
    ),
    "text and numbers in a list": (
        "t.jsonl",
        '{"text": "a", "label": ["x", 1]}\n',
        {},
        "t.jsonl: column label mixes types: .*; correct it",
    ),
    "lists without end": (
        "t.jsonl",
        '{"text": "a", "label": ' + 100_000 * "[" + "\n",
        {},
        "t.jsonl, line 1 is not a JSON object: maximum recursion",
    ),
    "true and numbers": (
        "t.jsonl",
        '{"text": "a", "label": true}\n{"text": "b", "label": 1}\n',
        {},
        "t.jsonl, line 2: column label mixes types: a number after true or false",
    ),
    "class ids with a point": (
        "t.jsonl",
        '{"text": "a", "label": 1.0}\n{"text": "b", "label": 0}\n',
        {"target_names": ["no", "yes"]},
        "target: column 'label' is Float64; name a column of text or class ids, and write numbers",
    ),
    "responses with a point": (
        "t.jsonl",
        '{"text": "a", "label": 3.5}\n',
        {},
        "'label' is Float64",
    ),
    "true as a response": ("t.jsonl", '{"text": "a", "label": true}\n', {}, "'label' is Boolean"),
    "class ids with a point, as text": (
        "t.csv",
        "text,label\na,1.0\n",
        {"target_names": ["no", "yes"]},
        "target: '1.0' is no class id from 0 to 1; write ids without a point",
    ),
    "a class id below zero": (
        "t.csv",
        "text,label\na,-1\n",
        {"target_names": ["no", "yes"]},
        "target: '-1' is no class id from 0 to 1; it stands for no label, as in the test split",
    ),
    "a list of class ids as text": (
        "t.csv",
        "text,label\na,[1]\n",
        {"target_names": ["no", "yes"]},
        r"target: '\[1\]' is no class id from 0 to 1; write the ids without brackets, or as lists in a",
    ),
    "names in place of class ids": (
        "t.csv",
        "text,label\na,yes\n",
        {"target_names": ["no", "yes"]},
        "target: 'yes' is no class id from 0 to 1",
    ),
    "a class name twice": (
        "t.csv",
        "text,label\na,0\n",
        {"target_names": ["yes", "no", "yes\u00a0"]},
        "target_names: name 3 of the list, 'yes', is also name 1; give each class a name of its own",
    ),
    "an empty class name": (
        "t.csv",
        "text,label\na,0\n",
        {"target_names": ["yes", "\u200b"]},
        "target_names: name 2 of the list is empty",
    ),
    "a class name that looks like another": (
        "t.csv",
        "text,label\na,0\n",
        {"target_names": ["\u00e9t\u00e9 b", "no", "e\u0301te\u0301\u00a0b"]},
        "name 3 of the list, .* is also name 1",
    ),
    "columns beside a header": (
        "t.csv",
        "text,label\na,x\n",
        {"columns": ["text", "label"]},
        "t.csv: its first line holds the names of the columns .*; drop columns",
    ),
    "another column in the instruction": (
        "t.csv",
        "text,label,context\na,x,b\n",
        {"instruction": "{context}\n\n{prompt}"},
        r"instruction: \{context\} would stay as it is, .*; list 'context' under prompt, or drop it",
    ),
    "the prompt's column in the instruction": (
        "t.jsonl",
        '{"text": "a", "label": "x"}\n',
        {"instruction": "{text} {prompt}"},
        r"instruction: \{text\} would stay as it is",
    ),
    "a prompt of numbers": (
        "t.jsonl",
        '{"text": 3, "label": "x"}',
        {},
        "prompt: column 'text' is Int64",
    ),
}


@pytest.mark.bad_input(of="data")
@pytest.mark.parametrize(("name", "text", "keys", "message"), REFUSED.values(), ids=REFUSED)
def test_a_mistake_in_a_file_is_refused_in_one_line(tmp_path, name, text, keys, message):
    raw = text if isinstance(text, bytes) else text.encode()
    (tmp_path / name).write_bytes(raw)
    with refused(message) as error:
        load(f"path:{tmp_path / name}", **keys)
    assert "\n" not in str(error.value)


PACKED = {
    "gzip": (
        gzip.compress(b"text,label\na,x\n"),
        "compressed by gzip; unpack it, and name the file",
    ),
    "bzip2": (bz2.compress(b"text,label\na,x\n"), "compressed by bzip2; unpack it"),
    "xz": (lzma.compress(b"text,label\na,x\n"), "compressed by xz; unpack it"),
    "zstd": (b"\x28\xb5\x2f\xfd\x04\x00", "compressed by zstd; unpack it"),
    "Excel": (
        b"PK\x03\x04\x14\x00",
        "a zip archive or an Excel workbook; unpack it, or save the she",
    ),
    "old Excel": (b"\xd0\xcf\x11\xe0\xa1", "a workbook of an old Excel; save the sheet as csv"),
}


@pytest.mark.bad_input(of="data")
@pytest.mark.parametrize(
    "keys", [{}, {"format": "jsonl"}, {"format": "csv", "encoding": "latin-1"}]
)
@pytest.mark.parametrize(("raw", "message"), PACKED.values(), ids=PACKED)
def test_a_packed_file_is_refused_as_what_it_is(tmp_path, raw, message, keys):
    (tmp_path / "t.csv.x").write_bytes(raw)
    with refused(rf"t\.csv\.x is {message}"):
        load(f"path:{tmp_path}/t.csv.x", **keys)


@pytest.mark.parametrize(
    ("name", "tells"),
    [("train-00000-of-00002", True), ("train-00000-of-00001", False), ("train-00000", False)],
)
def test_one_of_several_files_is_told(tmp_path, caplog, name, tells):
    pl.DataFrame({"text": ["a"], "label": ["x"]}).write_parquet(tmp_path / f"{name}.parquet")
    assert load(f"path:{tmp_path}/{name}.parquet") == [("a", ["x"])]
    assert ("is one of 2 files, and the others are not read; join them" in caplog.text) == tells


@pytest.mark.parametrize(
    ("text", "tells"), [(r"a\nb", True), (r"a\tb", True), (r"C:\data", False), ("a", False)]
)
def test_line_ends_of_a_database_are_told(tmp_path, caplog, text, tells):
    (tmp_path / "t.tsv").write_text(f"text\tlabel\n{text}\tx\n")
    assert load(f"path:{tmp_path}/t.tsv") == [(text, ["x"])]
    assert (r"1 cells hold \n or \t as two characters, and keep them" in caplog.text) == tells


@pytest.mark.parametrize("encoding", ["gbk", "gb18030", "big5"])
def test_encodings_of_chinese(tmp_path, encoding):
    (tmp_path / "t.csv").write_bytes("text,label\n中文 文字,好\n".encode(encoding))
    assert load(f"path:{tmp_path}/t.csv", encoding=encoding) == [("中文 文字", ["好"])]


def test_utf_16_can_be_asked_for(tmp_path):
    (tmp_path / "t.csv").write_bytes(UTF_16)
    assert load(f"path:{tmp_path}/t.csv", encoding="utf-16") == GOOD


def test_scores_may_be_whole_or_not(tmp_path):
    rows = [{"text": "a", "label": "x", "s": 1}, {"text": "b", "label": "x", "s": 0.5}]
    source = write_jsonl(tmp_path / "t.jsonl", rows)
    (frame,) = load_rows(block(source, filter={"min_value": {"s": 0}})).values()
    assert frame["value:s"].to_list() == [1.0, 0.5]


@pytest.mark.bad_input(of="data")
@pytest.mark.parametrize("score", [True, datetime.date(2020, 1, 1), datetime.timedelta(1)])
def test_a_score_is_a_number(tmp_path, score):
    pl.DataFrame({"text": ["a"], "label": ["x"], "s": [score]}).write_parquet(
        tmp_path / "t.parquet"
    )
    with refused(r"filter.min_value: column 's' is .*; name a column of num"):
        load(f"path:{tmp_path}/t.parquet", filter={"min_value": {"s": 0}})


NAMES = {
    "a byte order mark": ("\ufeffno\nyes\n", ["no", "yes"]),
    "line ends of Windows": ("no\r\nyes\r\n\r\n", ["no", "yes"]),
    "line ends of an old Mac": ("no\ryes\r", ["no", "yes"]),
    "line ends of texts inside of names": ("n\u2028o\ny\x85e\x0cs\n", ["n\u2028o", "y\x85e\x0cs"]),
    "names with numbers": (
        "1 star\n2 stars\n",
        "has ids beside the names .*or the names as a list",
    ),
    "an empty line at the beginning": ("\nno\nyes\n", "name 1 of .*names.txt is empty; drop it or"),
    "nothing": ("\n", "target_names: .*names.txt is empty; name another file"),
    "json": ('[\n"no",\n"yes"\n]\n', "is JSON; write one name a line"),
    "json, ids and names": ('{\n"0": "no",\n"1": "yes"\n}\n', "is JSON"),
    "yaml": ("- no\n- yes\n", "is a list in YAML"),
    "yaml, ids and names": ("0: no\n1: yes\n", "has ids beside"),
    "ids and names": ("0\tno\n1\tyes\n", "has several columns"),
    "blanks": ("  no\u00a0\nyes\u200b", ["no", "yes"]),
    "an empty line": (
        "no\n\nyes\n",
        "target_names: name 2 of .*names.txt is empty; drop it or name",
    ),
    "JSON": ('[\n "no",\n "yes"\n]\n', "target_names: .*names.txt is JSON; write one name a line"),
    "JSON on a line": (
        '["no", "yes"]',
        "names.txt is JSON; .*or the names as a list in the config",
    ),
    "YAML": ("- no\n- yes\n", "names.txt is a list in YAML; write one"),
    "quotation marks": ('"no"\n"yes"\n', "names.txt has its names between quotation marks"),
    "ids and tabs": ("0\tno\n1\tyes\n", "names.txt has several columns"),
    "ids and blanks": ("0 no\n1 yes\n", "names.txt has ids beside the names \\('0 no'\\)"),
    "ids from one": ("1) no\n2) yes\n", "names.txt has ids beside the names"),
    "ids at the end": ("no,0\nyes,1\n", "names.txt has ids beside the names"),
    "ids below a header": ("id,title\n0,no\n1,yes\n", "has ids beside the names \\('0,no'\\)"),
    "a header": ("Names\nno\nyes\n", "names.txt begins with 'Names', the name of a column"),
    "the column as a header": ("label\nno\nyes\n", "begins with 'label', the name of a column"),
    "numbers alone": ("0\n1\n", ["0", "1"]),
    "numbers in names": ("1 star\n5 stars\n", ["1 star", "5 stars"]),
    "numbers at the end of names": ("level 0\nlevel 1\n", ["level 0", "level 1"]),
    "one name with a number": ("none\n1 star\n", ["none", "1 star"]),
    "hyphens and brackets": ("[no] - never\n- yes\n", ["[no] - never", "- yes"]),
    "a name twice": ("no\nyes\nno \n", "target_names: name 3 of .*names.txt, 'no', is also name 1"),
}


@pytest.mark.parametrize(("text", "expected"), marked(NAMES, of="data"))
def test_files_of_class_names(tmp_path, text, expected):
    rows = [{"text": "a", "label": 0}, {"text": "b", "label": 1}]
    source = write_jsonl(tmp_path / "t.jsonl", rows)
    (tmp_path / "names.txt").write_text(text, encoding="utf-8", newline="")
    keys = {"target_names": f"path:{tmp_path}/names.txt"}
    if isinstance(expected, str):
        with refused(expected):
            load(source, **keys)
    else:
        assert [targets[0] for _, targets in load(source, **keys)] == expected


@pytest.mark.bad_input(of="data")
def test_class_names_of_a_data_set_are_checked_too(tmp_path):
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "no "])}
    )
    table = datasets.Dataset.from_dict({"text": ["a"], "label": [0]}, features=features)
    table.save_to_disk(tmp_path / "d")
    with refused("name 2 of the class names of the source, 'no', is also"):
        load(f"path:{tmp_path}/d", target_names="features")
