import re
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from sft_interactions import tables
from sft_interactions.version import __version__

LOG_ODDS = pl.DataFrame(
    {"mask": [1, 0, 1, 0], "sample_id": ["b", "b", "a", "a"], "log_odds": [0.1, 0.2, 0.3, 0.4]}
)
PROVENANCE = {"created_by": "log_odds", "inputs_digest": "c0ffee"}
EVERY = {name: table for name, table in vars(tables).items() if isinstance(table, tables.Table)}


def write(path, frame=LOG_ODDS, **options):
    tables.write(frame, path, tables.LOG_ODDS, **PROVENANCE, **options)
    return path


def test_what_is_written_is_sorted_cast_and_zstd(tmp_path):
    path = write(tmp_path / "deep" / "folder" / "t.parquet", LOG_ODDS.with_columns(extra=pl.lit(1)))
    found = tables.read(path, tables.LOG_ODDS)
    assert dict(found.schema) == tables.LOG_ODDS.columns
    assert found.columns == ["sample_id", "mask", "log_odds"]
    assert found.select("sample_id", "mask").rows() == [("a", 0), ("a", 1), ("b", 0), ("b", 1)]
    assert found["log_odds"].to_list() == pytest.approx([0.4, 0.3, 0.2, 0.1])
    assert pl.read_parquet_schema(path) == tables.LOG_ODDS.columns


def test_metadata(tmp_path):
    path = write(tmp_path / "t.parquet", metadata={"mask_embedding": "mean"})
    metadata = tables.read_metadata(path)
    expected = {"schema_version": "3", "mask_embedding": "mean", **PROVENANCE}
    assert expected.items() <= metadata.items()
    assert metadata["code_version"] == tables.code_version()
    assert metadata["code_version"].startswith(f"{__version__}+")


def test_columns_can_be_chosen(tmp_path):
    path = write(tmp_path / "t.parquet")
    assert tables.read(path, tables.LOG_ODDS, ["mask"]).columns == ["mask"]


def test_same_rows_same_bytes(tmp_path):
    one = write(tmp_path / "one.parquet")
    two = write(tmp_path / "two.parquet", LOG_ODDS.reverse())
    assert one.read_bytes() == two.read_bytes()


def test_permissions_are_not_those_of_a_temporary_file(tmp_path):
    assert write(tmp_path / "t.parquet").stat().st_mode & 0o777 == 0o644


def test_brackets_in_a_name_are_no_pattern(tmp_path):
    folder = tmp_path / "results [2]"
    path = write(folder / "t[1].parquet", LOG_ODDS.head(1))
    pl.DataFrame({"other": [1]}).write_parquet(folder / "t1.parquet")
    assert len(tables.read(path, tables.LOG_ODDS)) == 1


def test_a_failed_write_leaves_nothing(tmp_path, monkeypatch):
    def fail(frame, path, **_):
        path.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(pl.DataFrame, "write_parquet", fail)
    with pytest.raises(OSError, match="disk full"):
        write(tmp_path / "t.parquet")
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = write(tmp_path / "t.parquet")
    before = path.read_bytes()
    with pytest.raises(ValueError, match="columns missing"):
        write(path, LOG_ODDS.drop("mask"))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_replacing_gives_the_file_its_name_at_the_end(tmp_path):
    path = tmp_path / "folder" / "stages.json"
    with tables.replacing(path) as temporary:
        temporary.write_text("{}")
        assert not path.exists()
        assert temporary.parent == path.parent
    assert path.read_text() == "{}"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (LOG_ODDS.drop("mask", "log_odds"), "columns missing: mask, log_odds"),
        (LOG_ODDS.with_columns(mask=pl.lit(-1)), "does not fit its column"),
        (LOG_ODDS.with_columns(mask=pl.lit("x")), "does not fit its column"),
        (LOG_ODDS.with_columns(log_odds=pl.lit(None)), "column log_odds holds null"),
        (LOG_ODDS.with_columns(log_odds=pl.lit(float("nan"))), "column log_odds holds NaN"),
        (LOG_ODDS.with_columns(mask=pl.lit(0)), "'a', 'mask': 0} occurs more than once"),
    ],
)
def test_what_breaks_the_schema_is_refused(tmp_path, frame, message):
    path = tmp_path / "t.parquet"
    with pytest.raises(ValueError, match=message) as error:
        write(path, frame)
    assert str(error.value).startswith(str(path))
    assert not path.exists()


def test_null_is_allowed_where_a_value_can_be_undefined():
    row = {"step": 0, "train_loss": 1.0, "validation_loss": None, "learning_rate": 0.0}
    checked = tables.check(pl.DataFrame([row]), tables.TRAINING, "training")
    assert checked.row(0, named=True) == row
    assert checked.schema["validation_loss"] == pl.Float64
    with pytest.raises(ValueError, match="training: column train_loss holds null"):
        tables.check(pl.DataFrame([{**row, "train_loss": None}]), tables.TRAINING, "training")


def test_unknown_class_or_kind_is_refused():
    frame = pl.DataFrame(
        {"sample_id": ["a"], "kind": ["xor"], "pattern": [1], "order": [1], "effect": [0.5]}
    )
    with pytest.raises(ValueError, match="i: a value does not fit its column"):
        tables.check(frame, tables.INTERACTIONS, "i")


def test_a_file_of_another_schema_is_not_read(tmp_path):
    path = write(tmp_path / "t.parquet")
    with pytest.raises(ValueError, match=r"t\.parquet: column n_players is missing; rebuild"):
        tables.read(path, tables.SOLVE)
    version = {"schema_version": tables.WITHOUT_DIGEST}
    LOG_ODDS.write_parquet(path, metadata=version)
    with pytest.raises(ValueError, match=r"t\.parquet: column mask is Int64, expected UInt32"):
        tables.read(path, tables.LOG_ODDS)


READERS = {
    "read": lambda path: tables.read(path, tables.LOG_ODDS),
    "scan": lambda path: tables.scan(path, tables.LOG_ODDS),
    "read_metadata": tables.read_metadata,
}


@pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
def test_a_table_of_another_version_is_refused_in_one_line(tmp_path, monkeypatch, reader):
    path = tmp_path / "t.parquet"
    monkeypatch.setattr(tables, "SCHEMA_VERSION", "1")
    write(path)
    monkeypatch.undo()
    with pytest.raises(ValueError, match="schema version 1, but version 3 is needed") as error:
        reader(path)
    assert str(error.value).startswith(f"{path}: ")
    assert str(error.value).endswith("delete the file and run snakemake again to rebuild it")
    assert "\n" not in str(error.value)
    LOG_ODDS.write_parquet(path)
    with pytest.raises(ValueError, match="schema version unknown"):
        reader(path)


def flipped(content, place):
    """The file with one bit changed."""
    byte, bit = divmod(place, 8)
    return content[:byte] + bytes([content[byte] ^ 1 << bit]) + content[byte + 1 :]


def spoilt(content):
    """Copies of a file that are not what was written."""
    for place in range(0, 8 * len(content), 7):
        yield f"bit {place}", flipped(content, place)
    for size in range(0, len(content), 97):
        yield f"cut at {size}", content[:size]
        yield f"zeros from {size}", content[:size].ljust(len(content), b"\0")
        yield f"a byte more at {size}", content[:size] + b"x" + content[size:]


def answer(reader, path):
    """What a reader gives, or its message."""
    try:
        return reader(path)
    except ValueError as error:
        return str(error)


def test_a_damaged_table_is_never_read(tmp_path):
    path = write(tmp_path / "t.parquet", metadata={"mask_embedding": "mean"})
    content = path.read_bytes()
    message = (
        f"{path}: this is not what was written (a damaged disk or copy, or a change by another "
        "program); delete the file and run snakemake again to rebuild it"
    )
    for what, other in spoilt(content):
        path.write_bytes(other)
        for name, reader in READERS.items():
            found = answer(reader, path)
            assert isinstance(found, str), (what, name)
            assert found == message


def test_a_table_of_the_version_without_a_digest_is_read(tmp_path):
    path = tmp_path / "t.parquet"
    frame = tables.check(LOG_ODDS, tables.LOG_ODDS, "t")
    frame.write_parquet(path, metadata={"schema_version": tables.WITHOUT_DIGEST})
    assert_frame_equal(tables.read(path, tables.LOG_ODDS), frame)


def test_the_digest_is_not_taken_away_with_the_version(tmp_path):
    path = write(tmp_path / "t.parquet")
    frame = tables.read(path, tables.LOG_ODDS)
    frame.write_parquet(path, metadata={"schema_version": tables.SCHEMA_VERSION})
    with pytest.raises(ValueError, match="this is not what was written"):
        tables.read(path, tables.LOG_ODDS)


def test_a_damaged_json_file_is_never_read(tmp_path):
    path = tmp_path / "stages.json"
    written = {"run": "a", "boundary_step": 18, "evidence": {"explained": 0.25, "losses": {}}}
    tables.write_json(written, path)
    assert tables.read_json(path) == written
    content = path.read_bytes()
    for what, other in spoilt(content):
        path.write_bytes(other)
        found = answer(tables.read_json, path)
        # Else a blank more or less.
        assert found == written or "this is not what was written" in found, what


def test_a_json_file_without_a_digest_is_read(tmp_path):
    path = tmp_path / "stages.json"
    path.write_text('{"run": "a"}')
    assert tables.read_json(path) == {"run": "a"}
    path.write_text('["a"]')
    with pytest.raises(ValueError, match="this is not what was written"):
        tables.read_json(path)


def test_every_table_of_the_workflow_is_read_by_this_module():
    allowed = {
        # What a callback keeps for itself; it is no table of a workflow.
        "sft_interactions/callback.py",
        # Files of users.
        "sft_interactions/data/reading.py",
        "sft_interactions/data/player_file.py",
        "sft_interactions/tables.py",
    }
    workflow = Path(tables.__file__).parents[1]
    found = {
        source.relative_to(workflow).as_posix()
        for source in workflow.rglob("*.py")
        if re.search(r"(read|scan)_(parquet|ipc)", source.read_text())
    }
    assert found <= allowed


@pytest.mark.parametrize("table", EVERY.values(), ids=EVERY)
def test_declared_tables_are_consistent_and_can_be_empty(tmp_path, table):
    assert set(table.key) | table.nullable <= set(table.columns)
    path = tmp_path / "t.parquet"
    tables.write(pl.DataFrame(schema=table.columns), path, table, **PROVENANCE)
    assert tables.read(path, table).is_empty()


def test_samples_have_their_earlier_turns_where_the_table_has_them(tmp_path):
    path = tmp_path / "analysis.parquet"
    rows = pl.DataFrame({"sample_id": ["a"], "prompt": ["p"], "target": ["t"], "earlier": ["[{}]"]})
    for table, earlier in ((tables.DATA, "[]"), (tables.DATA_WITH_TURNS, "[{}]")):
        tables.write(rows, path, table, **PROVENANCE)
        assert tables.read_samples(path).rows() == [("a", "p", "t", earlier)]
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(ValueError, match="this is not what was written"):
        tables.read_samples(path)
