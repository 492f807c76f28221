import polars as pl
import pytest
from sample_tables import write

from sft_interactions import tables
from sft_interactions.report_page.records import (
    Cost,
    Warned,
    checkout_of,
    describe_log_odds,
    read_costs,
    read_digests,
    read_skipped,
    read_warnings,
)

HEAD = "s\th:m:s\tmax_rss\n"


def put(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")


def test_costs_are_summed_over_the_jobs_of_a_stage(tmp_path):
    put(tmp_path / "dynamics" / "a.tsv", f"{HEAD}1.5\t0:00:01\t100\n")
    put(tmp_path / "dynamics" / "b.tsv", f"{HEAD}2.0\t0:00:02\t300\n")
    put(tmp_path / "inference" / "a" / "from-step-0.tsv", f"{HEAD}9.25\t0:00:09\t-\n")
    put(tmp_path / "findings.tsv", f"{HEAD}0.5\t0:00:00\t50\n")
    put(tmp_path / "inference" / "old" / "from-step-0.tsv", f"{HEAD}99\t0:01:39\t7\n")
    put(tmp_path / "dynamics" / "old.tsv", f"{HEAD}99\t0:01:39\t7\n")
    assert read_costs(tmp_path, ["old"]) == [
        Cost("inference", 1, 9.25, None),
        Cost("dynamics", 2, 3.5, 300.0),
        Cost("findings", 1, 0.5, 50.0),
    ]


@pytest.mark.parametrize("text", ["a\tb\n1\t2\n", f"{HEAD}x\t0:00:01\t1\n", f"{HEAD}1\n"])
def test_a_file_that_is_no_benchmark_is_refused(tmp_path, text):
    put(tmp_path / "dynamics" / "a.tsv", text)
    with pytest.raises(ValueError, match=r"a.tsv: this is no benchmark of Snakemake; delete"):
        read_costs(tmp_path)


def test_warnings_are_counted_and_other_lines_are_not(tmp_path):
    warned = "12:00:01 /a b/x.py:12: FutureWarning: old <b>\n  call()\n"
    put(tmp_path / "finetune" / "a.log", f"12:00:00 step 1: loss 2\n{warned}{warned}")
    put(tmp_path / "finetune" / "old.log", warned)
    put(tmp_path / "report.log", "12:00:00 UserWarning: not of Python's warnings\n")
    assert read_warnings(tmp_path, ["old"]) == [Warned("finetune", "FutureWarning", "old <b>", 2)]
    assert read_warnings(tmp_path / "nothing") == []


def test_what_python_warns_of_is_found_in_the_log_of_a_script(tmp_path):
    # As job.py sets up the logs.
    import logging
    import warnings

    log = logging.FileHandler(tmp_path / "a.log", encoding="utf-8")
    log.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    logger = logging.getLogger("py.warnings")
    logger.addHandler(log)
    logging.captureWarnings(True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn("take care", UserWarning, stacklevel=1)
    finally:
        logging.captureWarnings(False)
        logger.removeHandler(log)
        log.close()
    assert read_warnings(tmp_path) == [Warned("a", "UserWarning", "take care", 1)]


def test_digests_are_those_of_the_files(tmp_path):
    frame = pl.DataFrame({"sample_id": ["a"], "prompt": ["b"], "target": ["c"]})
    write(frame, tmp_path / "data" / "x.parquet", tables.DATA)
    (row,) = read_digests([tmp_path / "data" / "x.parquet"] * 2, tmp_path).to_dicts()
    assert row == {
        "file": "data/x.parquet",
        "rule": "test",
        "code": tables.code_version(),
        "digest": tables.written_metadata(tmp_path / "data" / "x.parquet")["file_digest"],
    }


def test_what_was_left_out_is_told(tmp_path):
    frame = pl.DataFrame({"sample_id": ["a"], "prompt": ["b"], "target": ["c"]})
    for name, skipped in (("x", '{"too few words": 3, "other": 0}'), ("y", "{}")):
        tables.write(
            frame,
            tmp_path / f"{name}.parquet",
            tables.DATA,
            created_by="test",
            inputs_digest="0",
            metadata={"skipped": skipped},
        )
    paths = [tmp_path / "x.parquet", tmp_path / "y.parquet"]
    assert read_skipped(paths, tmp_path) == [("x.parquet", "too few words", "3")]


def test_how_log_odds_were_made_is_told(tmp_path):
    rows = pl.DataFrame({"sample_id": ["a"], "mask": [0], "log_odds": [1.0]})
    paths = [tmp_path / "step-0.parquet", tmp_path / "step-5.parquet"]
    for path, method, error in zip(
        paths, ("prefix_tree", "full_length"), ("2e-06", "0.0"), strict=True
    ):
        tables.write(
            rows,
            path,
            tables.LOG_ODDS,
            created_by="test",
            inputs_digest="0",
            metadata={"dtype": "float32", "method": method, "log_odds_error_max": error},
        )
    assert describe_log_odds(paths[:1]) == "float32, prefix tree; measured error up to 2e-06"
    assert describe_log_odds(paths) == (
        "float32, full length; float32, prefix tree; measured error up to 2e-06"
    )
    write(rows, paths[1], tables.LOG_ODDS)
    with pytest.raises(
        ValueError, match=r"step-5.parquet: it does not tell how it was made; delete"
    ):
        describe_log_odds(paths)


def test_a_folder_without_git_is_told_so(tmp_path):
    assert checkout_of(tmp_path) == "not a Git checkout"
