import numpy as np
import polars as pl
import pytest

from sft_interactions import tables
from sft_interactions.masking.parts import (
    Parts,
    fingerprint,
    merge,
    shared_inputs_digest,
    shared_made_of,
)

PROVENANCE = {"created_by": "inference", "inputs_digest": "c0ffee"}
PROMPTS = pl.DataFrame(
    {"sample_id": ["a", "b", "c"], "player_of_token": [[0, -1, 1], [1, 0], [-1, 0, 0]]},
    schema_overrides={"player_of_token": pl.List(pl.Int8)},
)


def rows(sample_id, n_masks):
    return pl.DataFrame({"mask": np.arange(n_masks, dtype=np.uint32)}).with_columns(
        sample_id=pl.lit(sample_id), log_odds=pl.lit(0.5, pl.Float32)
    )


def test_a_part_is_read_as_it_was_written(tmp_path):
    parts = Parts(tmp_path / "parts", **PROVENANCE)
    values = np.arange(4, dtype=np.float32)
    assert not parts.holds("key-a")
    parts.write("key-a", "a", values, {"dtype": "float32"})
    assert parts.holds("key-a")
    found, about = parts.read("key-a")
    assert found["sample_id"].to_list() == ["a"] * 4
    assert found["mask"].to_list() == [0, 1, 2, 3]
    np.testing.assert_array_equal(found["log_odds"], values)
    assert about == {"dtype": "float32"}
    with pytest.raises(OSError, match="key-b"):
        parts.read("key-b")


def test_fingerprints_tell_apart_what_they_are_of():
    assert fingerprint(dtype="float32", n=1) == fingerprint(n=1, dtype="float32")
    assert fingerprint(dtype="float32") != fingerprint(dtype="bfloat16")


def test_a_part_says_what_it_depends_on(tmp_path):
    parts = Parts(tmp_path, **PROVENANCE)
    parts.write("key-a", "a", np.zeros(2, np.float32), {})
    assert tables.read_metadata(tmp_path / "key-a.parquet")["inputs_digest"] == "key-a"


def test_shards_of_different_inputs_are_not_merged(tmp_path):
    paths = [tmp_path / f"from-step-0-shard-{shard}" / "step-0.parquet" for shard in range(3)]
    for path, digest in zip(paths, ("one", "one", "two"), strict=True):
        by = {**PROVENANCE, "inputs_digest": digest}
        tables.write(rows("a", 2), path, tables.LOG_ODDS, **by)
    assert shared_inputs_digest(paths[:2]) == "one"
    with pytest.raises(ValueError, match=r"was computed by other code, .*; delete .*") as error:
        shared_inputs_digest(paths)
    assert str(error.value).startswith(f"{paths[2]}: ")
    assert f"delete {paths[0].parent} and {paths[2].parent} and run" in str(error.value)
    rows("a", 2).write_parquet(paths[0], metadata={"schema_version": tables.WITHOUT_DIGEST})
    with pytest.raises(ValueError, match="was computed by an older version; delete"):
        shared_inputs_digest(paths)


def test_shards_made_of_different_weights_are_not_merged(tmp_path):
    paths = [tmp_path / f"from-step-0-shard-{shard}" / "step-0.parquet" for shard in range(3)]
    for path, digest in zip(paths, ("one", "one", "two"), strict=True):
        made_of = {"runs/a/checkpoints/step-0": digest}
        tables.write(rows("a", 2), path, tables.LOG_ODDS, made_of=made_of, **PROVENANCE)
    assert shared_made_of(paths[:2]) == {"runs/a/checkpoints/step-0": "one"}
    with pytest.raises(
        ValueError, match=r"step-0\.parquet: was computed by other code, .*; delete"
    ):
        shared_made_of(paths)
    tables.write(rows("a", 2), paths[0], tables.LOG_ODDS, **PROVENANCE)
    with pytest.raises(ValueError, match="was computed by an older version; delete"):
        shared_made_of(paths)


def test_a_part_under_the_name_of_another_is_refused(tmp_path):
    parts = Parts(tmp_path, **PROVENANCE)
    parts.write("mine", "a", np.zeros(2, np.float32), {})
    (tmp_path / "mine.parquet").rename(tmp_path / "other.parquet")
    with pytest.raises(
        ValueError, match=r"other\.parquet: this was kept as mine\.parquet, .*; delete"
    ):
        parts.read("other")


def test_shards_make_the_whole():
    shards = [pl.concat([rows("a", 4), rows("c", 2)]), rows("b", 4)]
    merged = merge(shards, PROMPTS, "run")
    assert merged.sort("sample_id", "mask").equals(
        pl.concat([rows("a", 4), rows("b", 4), rows("c", 2)])
    )


@pytest.mark.parametrize(
    ("shards", "message"),
    [
        ([rows("a", 4), rows("c", 2)], "sample b is missing"),
        ([rows("a", 4), rows("b", 4), rows("c", 2), rows("b", 4)], "sample b has a mask twice"),
        ([rows("a", 4), rows("b", 2), rows("c", 2)], "sample b has 2 of 4 masks"),
        ([rows("a", 4), rows("b", 8), rows("c", 2)], "sample b has 8 of 4 masks"),
        ([rows("a", 4), rows("b", 5)[1:], rows("c", 2)], "sample b has 4 of 4 masks"),
        (
            [rows("a", 4), rows("b", 4), rows("c", 2), rows("d", 2)],
            "sample d is not among the prompts",
        ),
    ],
)
def test_what_is_not_the_whole_is_refused(shards, message):
    with pytest.raises(ValueError, match=f"run, step 3: {message}"):
        merge(shards, PROMPTS, "run, step 3")
