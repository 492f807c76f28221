"""From log-odds to values, from solutions to rows, and what is refused."""

from dataclasses import fields

import numpy as np
import polars as pl
import pytest

from sft_interactions import tables
from sft_interactions.extraction import Extraction, extract, reconstruct
from sft_interactions.extraction.interactions import (
    check_certificates,
    from_extraction,
    to_extraction,
    to_values,
)


def log_odds(values):
    """Rows of a ``log_odds`` table from {sample: [v by mask]}."""
    rows = [(s, mask, v) for s, row in values.items() for mask, v in enumerate(row)]
    return pl.DataFrame(rows, schema=tables.LOG_ODDS.columns, orient="row")


WHOLE = log_odds({"b": [0.0, 1.0, 2.0, 3.0], "a": [4.0, 5.0, 6.0, 7.0]})


def test_values_are_in_the_order_of_samples_and_masks():
    for frame in (WHOLE, WHOLE.reverse(), WHOLE.sample(fraction=1, shuffle=True, seed=0)):
        samples, values = to_values(frame, "t")
        assert samples == ["a", "b"]
        assert values.dtype == np.float64
        assert values.tolist() == [[4, 5, 6, 7], [0, 1, 2, 3]]


def first_row_of_b(**changes):
    where = (pl.col("sample_id") == "b") & (pl.col("mask") == 1)
    columns = [
        pl.when(where).then(pl.lit(value)).otherwise(pl.col(name)).cast(WHOLE.schema[name])
        for name, value in changes.items()
    ]
    return WHOLE.with_columns(c.alias(name) for c, name in zip(columns, changes, strict=True))


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (WHOLE.filter(pl.col("log_odds") != 1), "sample b has 3 of 4 masks"),
        (WHOLE.filter(pl.col("log_odds") != 3), "sample b has 3 of 4 masks"),
        (first_row_of_b(mask=2), "sample b repeats a mask"),
        (pl.concat([WHOLE, WHOLE.filter(sample_id="b")]), "sample b repeats a mask"),
        (first_row_of_b(log_odds=float("nan")), "sample b holds a log_odds that is NaN"),
        (first_row_of_b(log_odds=float("-inf")), "sample b holds a log_odds that is NaN or inf"),
        (WHOLE.filter(pl.col("mask") < 3), "the largest mask is 2, not 2\\^n - 1"),
        (log_odds({"a": [0.0] * 6}), "not 2\\^n - 1"),
        (log_odds({"a": [0.0] * 4, "b": [0.0] * 8}), "sample a has 4 of 8 masks"),
    ],
)
def test_broken_log_odds_are_refused_with_file_and_sample(frame, message):
    with pytest.raises(ValueError, match=message) as error:
        to_values(frame, "runs/r/log_odds/step-5.parquet")
    assert str(error.value).startswith("runs/r/log_odds/step-5.parquet: ")


def test_of_several_broken_samples_the_first_is_named():
    broken = {f"s{number:02d}": [0.0] * 3 for number in range(30)}
    with pytest.raises(ValueError, match="sample s00 has 3 of 4 masks"):
        to_values(log_odds({**broken, "whole": [0.0] * 4}).reverse(), "t")


def test_a_prompt_without_players_has_one_value():
    samples, values = to_values(log_odds({"a": [2.5]}), "t")
    assert (samples, values.tolist()) == (["a"], [[2.5]])


VALUES = np.random.default_rng(0).normal(size=(2, 8))


def test_rows_of_a_made_up_solution():
    zero = np.zeros((2, 8))
    and_effects, or_effects = zero.copy(), zero.copy()
    and_effects[0, [1, 7]] = 2.0, -0.5
    or_effects[1, 6] = 0.25
    pair = np.array([1.0, 2.0])
    solved = Extraction(
        and_effects, or_effects, pair * 9, pair, pair * 2, pair * 3, pair * 4, pair * 5, pair * 6
    )
    interactions, solve = from_extraction(["a", "b"], VALUES, solved)
    assert tables.check(interactions, tables.INTERACTIONS, "i").rows() == [
        ("a", "and", 1, 1, 2.0),
        ("a", "and", 7, 3, -0.5),
        ("a", "bias", 0, 0, 9.0),
        ("b", "or", 6, 2, 0.25),
        ("b", "bias", 0, 0, 18.0),
    ]
    differences = np.abs(VALUES[:, 7] - VALUES[:, 0])
    ranges = VALUES.max(axis=1) - VALUES.min(axis=1)
    assert tables.check(solve, tables.SOLVE, "s").rows() == [
        ("a", 3, 1.0, 2.0, 3.0, differences[0], ranges[0], 4.0, 5.0, 6),
        ("b", 3, 2.0, 4.0, 6.0, differences[1], ranges[1], 8.0, 10.0, 12),
    ]


def test_columns_of_the_solve_table():
    solved = extract(VALUES)
    _, solve = from_extraction(["a", "b"], VALUES, solved)
    assert set(solve.columns) == set(tables.SOLVE.columns)
    assert solve["n_players"].to_list() == [3, 3]


def test_a_constant_table_has_only_a_bias():
    v = np.full((1, 4), 2.5)
    interactions, solve = from_extraction(["a"], v, extract(v))
    assert tables.check(interactions, tables.INTERACTIONS, "i").rows() == [("a", "bias", 0, 0, 2.5)]
    check_certificates(solve, 1e-6, "r, step 5")


def test_rows_of_a_real_solution_give_the_log_odds_again():
    solved = extract(VALUES, noise_ratio=0.04, gap_tolerance=1e-6)
    interactions, solve = from_extraction(["a", "b"], VALUES, solved)
    effects = interactions.filter(pl.col("kind") != "bias")
    assert (effects["effect"] != 0).all()
    assert (effects["order"] >= 1).all()
    assert interactions.filter(kind="bias")["sample_id"].to_list() == ["a", "b"]
    for row, sample_id in enumerate(["a", "b"]):
        dense = {kind: np.zeros(8) for kind in ("and", "or", "bias")}
        for kind, pattern, effect in (
            interactions.filter(sample_id=sample_id).select("kind", "pattern", "effect").rows()
        ):
            dense[kind][pattern] = effect
        phi = reconstruct(dense["bias"][0], dense["and"], dense["or"])
        bound = solve.filter(sample_id=sample_id)["noise_bound"].item()
        assert np.abs(phi - VALUES[row]).max() <= bound + 1e-9
    check_certificates(solve, 1e-6, "run, step 0")


def certificate(**changes):
    row = {
        "sample_id": "a",
        "l1": 10.0,
        "l1_lower_bound": 10.0,
        "max_residual": 0.1,
        "noise_bound": 0.1,
    }
    return pl.DataFrame([{**row, **changes}])


def test_certificates():
    check_certificates(certificate(), 1e-6, "r, step 5")
    check_certificates(certificate(l1_lower_bound=9.9), 0.02, "r, step 5")
    check_certificates(certificate(l1=0.0, l1_lower_bound=0.0), 1e-6, "r, step 5")
    with pytest.raises(ValueError, match=r"^r, step 5, sample a: .*1\.0e-02.*gap_tolerance"):
        check_certificates(certificate(l1_lower_bound=9.9), 1e-6, "r, step 5")
    with pytest.raises(ValueError, match=r"^r, step 5, sample a: .*1\.100e-01.*report it"):
        check_certificates(certificate(max_residual=0.11), 1e-6, "r, step 5")
    with pytest.raises(ValueError, match="report it"):  # a multiple of its bound
        check_certificates(certificate(max_residual=0.2), 1e-6, "r, step 5")


def test_solutions_come_back_from_their_tables():
    samples = ["a", "b", "c"]
    v = np.random.default_rng(0).normal(size=(3, 16)).cumsum(axis=1)
    solved = extract(v)
    interactions, solve = from_extraction(samples, v, solved)
    found = to_extraction(samples[::-1], interactions.reverse(), solve)
    for field in fields(solved):
        np.testing.assert_array_equal(
            getattr(found, field.name), getattr(solved, field.name)[::-1], err_msg=field.name
        )


@pytest.mark.parametrize(
    ("samples", "kept", "message"),
    [
        (["a", "b"], ["a", "b"], "the tables hold 3 samples"),
        (["a", "b", "d"], ["a", "b", "c"], "the tables hold 3 samples"),
        (["a", "b"], ["a", "c"], "of other samples"),
    ],
)
def test_solutions_of_other_samples_are_refused(samples, kept, message):
    v = np.random.default_rng(0).normal(size=(3, 8))
    interactions, solve = from_extraction(["a", "b", "c"], v, extract(v))
    if message == "of other samples":
        solve = solve.filter(pl.col("sample_id").is_in(samples))
    with pytest.raises(ValueError, match=message):
        to_extraction(samples, interactions.filter(pl.col("sample_id").is_in(kept)), solve)
