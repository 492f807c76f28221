"""What ran out is told, whatever came of it."""

import polars as pl
import pytest

from sft_interactions import tables
from sft_interactions.shortage import shortage_behind

MEMORY = "OS can't spawn worker thread: Resource temporarily unavailable (os error 11)"


def raised(function):
    try:
        function()
    except BaseException as error:
        return error
    raise AssertionError("nothing was raised")


def wrap(error, *, is_hidden):
    try:
        raise error
    except Exception as caught:
        raise ValueError("adapter: cannot be read; copy it again") from (
            None if is_hidden else caught
        )


@pytest.mark.parametrize("is_hidden", [False, True])
@pytest.mark.parametrize(
    ("error", "found"),
    [
        (MemoryError(), ("memory", "MemoryError")),
        (RuntimeError("[enforce fail] can't allocate memory: you tried\nC++ frames"), ("memory",)),
        (ImportError("libx.so: failed to map segment from shared object"), ("memory",)),
        (RuntimeError("can't start new thread"), ("memory", "can't start new thread")),
        (OSError(28, "No space left on device", "a.parquet"), ("disk",)),
        (RuntimeError("IO error: Disk quota exceeded (os error 122)"), ("disk",)),
        (RuntimeError("shapes do not fit"), None),
    ],
)
def test_a_shortage_is_found_behind_what_it_led_to(error, found, is_hidden):
    assert (shortage_behind(error) or ())[: len(found or ())] == (found or ())
    behind = shortage_behind(raised(lambda: wrap(error, is_hidden=is_hidden)))
    assert behind == shortage_behind(error)
    assert behind is None or "\n" not in behind[1]


def test_a_table_is_not_called_damaged_for_want_of_memory(tmp_path, monkeypatch):
    path = tmp_path / "t.parquet"
    frame = pl.DataFrame(schema=tables.LOG_ODDS.columns)
    tables.write(frame, path, tables.LOG_ODDS, created_by="rule", inputs_digest="0")

    def fail(*_args, **_options):
        raise pl.exceptions.PanicException(MEMORY)

    for reader in ("read_parquet_metadata", "scan_parquet"):
        with monkeypatch.context() as patch:
            patch.setattr(pl, reader, fail)
            error = raised(lambda: tables.read(path, tables.LOG_ODDS))
        assert isinstance(error, pl.exceptions.PanicException)
        assert shortage_behind(error) == ("memory", MEMORY)
