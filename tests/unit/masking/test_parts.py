import numpy as np
import polars as pl
import pytest

from sft_interactions.masking.parts import Parts, evaluate, fingerprint, folder_state, merge

PROVENANCE = {"created_by": "inference", "config_hash": "c0ffee"}
PROMPTS = pl.DataFrame(
    {"sample_id": ["a", "b", "c"], "player_of_token": [[0, -1, 1], [1, 0], [-1, 0, 0]]},
    schema_overrides={"player_of_token": pl.List(pl.Int8)},
)
KEYS = {"a": "key-a", "b": "key-b", "c": "key-c"}


def rows(sample_id, n_masks):
    return pl.DataFrame({"mask": np.arange(n_masks, dtype=np.uint32)}).with_columns(
        sample_id=pl.lit(sample_id), log_odds=pl.lit(0.5, pl.Float32)
    )


def values_of(sample_id):
    return np.arange(4, dtype=np.float32) + ord(sample_id), {"dtype": "float32", "of": sample_id}


def test_what_was_done_before_a_kill_is_not_done_again(tmp_path):
    def dies_at_c(sample_id):
        if sample_id == "c":
            raise KeyboardInterrupt
        return values_of(sample_id)

    parts = Parts(tmp_path / "parts", **PROVENANCE)
    with pytest.raises(KeyboardInterrupt):
        evaluate(parts, KEYS, dies_at_c, lambda *_: None)
    assert sorted(path.stem for path in parts.folder.iterdir()) == ["key-a", "key-b"]

    done, kept = [], []

    def counting(sample_id):
        done.append(sample_id)
        return values_of(sample_id)

    again = evaluate(parts, KEYS, counting, lambda *told: kept.append(told))
    assert done == ["c"]
    assert kept == [("a", True), ("b", True), ("c", False)]
    fresh = evaluate(Parts(tmp_path / "fresh", **PROVENANCE), KEYS, values_of, lambda *_: None)
    assert again[0].equals(fresh[0])
    assert again[1] == fresh[1] == {"dtype": "float32", "of": "c"}
    parts.remove(KEYS.values())
    assert not parts.folder.exists()


def test_a_part_of_other_settings_is_not_taken(tmp_path):
    parts = Parts(tmp_path / "parts", **PROVENANCE)
    evaluate(parts, {"a": fingerprint(dtype="float32")}, values_of, lambda *_: None)
    assert parts.read(fingerprint(dtype="float32")) is not None
    assert parts.read(fingerprint(dtype="bfloat16")) is None
    parts.remove([fingerprint(dtype="bfloat16")])
    assert parts.folder.exists()


def test_no_samples_give_an_empty_table(tmp_path):
    outputs, about = evaluate(Parts(tmp_path, **PROVENANCE), {}, values_of, lambda *_: None)
    assert outputs.columns == ["sample_id", "mask", "log_odds"]
    assert len(outputs) == 0
    assert about == {}


def test_folder_state_sees_a_changed_file(tmp_path):
    (tmp_path / "deep").mkdir()
    file = tmp_path / "deep" / "weights"
    file.write_text("one")
    before = folder_state(tmp_path)
    assert [name for name, _, _ in before] == ["deep/weights"]
    assert folder_state(tmp_path) == before
    file.write_text("three")
    assert folder_state(tmp_path) != before


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
