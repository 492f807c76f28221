import numpy as np
import polars as pl
import pytest

from sft_interactions.analysis.dynamics import (
    add_generalizability,
    classify,
    salient_at,
    split_draws,
)
from sft_interactions.tables import CLASS, KIND, KIND_OR_BIAS

SALIENT = {"sample_id": pl.String, "kind": KIND, "pattern": pl.UInt32, "order": pl.UInt8}


def salient(*rows, sample_id="a"):
    """Rows (kind, pattern, effect)."""
    return pl.DataFrame(
        [(sample_id, kind, p, p.bit_count(), effect) for kind, p, effect in rows],
        schema={**SALIENT, "effect": pl.Float64},
        orient="row",
    )


def classes(rows, step):
    """Class to {(kind, pattern): effect} at one step."""
    found = {"preserved": {}, "emerged": {}, "removed": {}}
    for row in rows.filter(pl.col("step") == step).iter_rows(named=True):
        found[row["class"]][row["kind"], row["pattern"]] = row["effect"]
    return found


def test_classes_of_a_hand_made_sequence():
    rows = classify(
        {
            0: salient(("and", 1, 1.0), ("and", 3, -0.5), ("or", 3, 0.4), ("and", 5, 0.3)),
            10: salient(("and", 1, 2.0), ("or", 3, 0.6), ("and", 6, 0.2)),
            30: salient(("and", 1, 3.0), ("and", 3, -0.7), ("and", 6, 0.8), ("or", 7, 0.1)),
        }
    )
    assert classes(rows, 0) == {
        "preserved": {("and", 1): 1.0, ("and", 3): -0.5, ("or", 3): 0.4, ("and", 5): 0.3},
        "emerged": {},
        "removed": {},
    }
    assert classes(rows, 10) == {
        "preserved": {("and", 1): 2.0, ("or", 3): 0.6},
        "emerged": {("and", 6): 0.2},
        "removed": {("and", 3): -0.5, ("and", 5): 0.3},  # effects of step 0
    }
    assert classes(rows, 30) == {
        "preserved": {("and", 1): 3.0},
        # ("and", 3) came back: emerged, and no longer removed
        "emerged": {("and", 3): -0.7, ("and", 6): 0.8, ("or", 7): 0.1},
        "removed": {("or", 3): 0.4, ("and", 5): 0.3},
    }
    assert rows.schema["class"] == CLASS
    assert rows.filter(pattern=6).get_column("order").unique().to_list() == [2]


def test_what_is_salient_at_a_checkpoint_is_found_in_the_classes():
    at_steps = {
        0: salient(("and", 1, 1.0), ("and", 3, -0.5), ("or", 3, 0.4)),
        10: salient(("and", 6, 0.2)),
        30: salient(("and", 1, 3.0), ("or", 3, -0.7), ("and", 6, 0.8)),
    }
    rows = add_generalizability(classify(at_steps), None, 3)
    for step, expected in at_steps.items():
        found = salient_at(rows, step).select(expected.columns)
        assert found.sort("kind", "pattern").equals(expected.sort("kind", "pattern"))


def test_generalizability_is_replaced_where_it_is_there():
    rows = classify({0: salient(("and", 1, 1.0), ("or", 3, 0.4))})
    reference = salient(("and", 1, 2.0))
    expected = add_generalizability(rows, reference, 3)
    assert expected["generalizable"].to_list() == [True, False]
    again = add_generalizability(add_generalizability(rows, None, 3), reference, 3)
    assert again.equals(expected)


def test_what_left_once_is_never_preserved_again():
    here, gone = salient(("and", 2, 1.0)), salient()
    rows = classify({0: here, 1: gone, 2: here, 3: here})
    found = [classes(rows, step) for step in range(4)]
    key = {("and", 2): 1.0}
    assert [c["preserved"] for c in found] == [key, {}, {}, {}]
    assert [c["emerged"] for c in found] == [{}, {}, key, key]
    assert [c["removed"] for c in found] == [{}, key, {}, {}]


def test_what_emerged_and_left_is_not_removed():
    rows = classify({0: salient(), 1: salient(("or", 3, 1.0)), 2: salient()})
    assert rows.select("step", "class").rows() == [(1, "emerged")]


def test_a_change_of_sign_does_not_end_preservation():
    rows = classify({0: salient(("and", 2, 1.0)), 5: salient(("and", 2, -1.0))})
    assert classes(rows, 5)["preserved"] == {("and", 2): -1.0}


def test_and_and_or_of_one_pattern_are_two_interactions():
    rows = classify({0: salient(("and", 3, 1.0)), 5: salient(("or", 3, 1.0))})
    assert classes(rows, 5) == {
        "preserved": {},
        "emerged": {("or", 3): 1.0},
        "removed": {("and", 3): 1.0},
    }


def test_samples_are_apart_and_steps_are_sorted():
    rows = classify(
        {
            8: salient(("and", 3, 1.0), sample_id="b"),
            0: salient(("and", 3, 2.0), sample_id="a"),
        }
    )
    at_8 = rows.filter(step=8).select("sample_id", "class", "effect").rows()
    assert sorted(at_8) == [("a", "removed", 2.0), ("b", "emerged", 1.0)]


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        (["0", "500", "1000"], "salient: the step '0' is of type str; give every step as an int"),
        ([0.0, 0.5, 1.0], "salient: the step 0.0 is of type float; give every step as an int"),
        ([False, True], "salient: the step False is of type bool; give"),
        ([0, np.bool_(True)], r"salient: the step np\.True_ is of type bool; give"),
        ([0, "1"], "salient: the step '1' is of type str; give"),
        ([], "salient: no step is there; give the tables of one checkpoint or more"),
    ],
)
def test_steps_that_are_no_numbers_of_steps_are_refused(steps, message):
    with pytest.raises(ValueError, match=message):
        classify({step: salient(("and", 3, 1.0)) for step in steps})


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint8])
def test_steps_may_be_integers_of_numpy(dtype):
    at_steps = {2: salient(("and", 3, 1.0)), 10: salient(), 30: salient(("or", 3, 1.0))}
    rows = classify({dtype(step): at_steps[step] for step in (10, 30, 2)})
    assert rows.equals(classify(at_steps))
    assert rows.schema["step"] == pl.Int64


def with_bias(rows):
    bias = rows.head(1).with_columns(
        pl.lit("bias").alias("kind"), pattern=pl.lit(0, pl.UInt32), order=pl.lit(0, pl.UInt8)
    )
    return pl.concat([rows.with_columns(pl.col("kind").cast(pl.String)), bias]).with_columns(
        pl.col("kind").cast(KIND_OR_BIAS)
    )


def test_the_bias_is_no_interaction():
    rows = salient(("and", 3, 1.0))
    message = r"salient\[5\]: sample a has a row of the bias, .*; give what select_salient returns"
    with pytest.raises(ValueError, match=message):
        classify({0: rows, 5: with_bias(rows)})
    with pytest.raises(ValueError, match="reference: sample a has a row of the bias"):
        add_generalizability(classify({0: rows}), with_bias(rows), 3)


def test_an_interaction_that_is_there_twice_is_refused():
    rows = salient(("and", 3, 1.0), ("or", 3, 1.0))
    twice = pl.concat([rows, salient(("or", 3, 0.5), ("and", 5, 1.0))])
    message = "sample a has the OR interaction of pattern 3 twice; give every interaction once"
    with pytest.raises(ValueError, match=rf"salient\[5\]: {message}"):
        classify({0: rows, 5: twice})
    with pytest.raises(ValueError, match=f"reference: {message}"):
        add_generalizability(classify({0: rows}), twice, 3)


def test_fewer_players_than_an_order_are_refused():
    rows, reference = classify({0: salient(("and", 3, 1.0))}), salient(("or", 7, 1.0))
    message = "has an interaction of order 3, n_players is 2; give the number of players of these"
    with pytest.raises(ValueError, match=f"reference: sample a {message}"):
        add_generalizability(rows, reference, 2)
    with pytest.raises(ValueError, match=f"rows: sample a {message}"):
        add_generalizability(classify({0: reference}), salient(), 2)
    assert add_generalizability(rows, reference, 3)["generalizable"].to_list() == [False]


def generalized(rows, reference, n=3):
    table = add_generalizability(classify({0: rows}), reference, n)
    return {
        (row["kind"], row["pattern"]): (row["generalizable"], pytest.approx(row["chance"]))
        for row in table.iter_rows(named=True)
    }


def test_generalizable_needs_kind_sign_pattern_and_sample():
    rows = salient(("and", 3, 1.0), ("and", 5, -1.0), ("or", 6, 1.0), ("and", 7, 1.0))
    reference = pl.concat(
        [
            salient(("and", 3, 0.1), ("and", 5, 2.0), ("and", 6, 1.0)),
            salient(("and", 7, 1.0), sample_id="b"),
        ]
    )
    found = generalized(rows, reference)
    assert {key: value[0] for key, value in found.items()} == {
        ("and", 3): True,
        ("and", 5): False,  # other sign
        ("or", 6): False,  # other kind
        ("and", 7): False,  # other sample
    }


def test_chance_is_the_share_of_patterns_that_the_reference_has():
    rows = salient(("and", 3, 1.0), ("and", 6, -1.0), ("or", 3, 1.0), ("and", 7, 1.0))
    # n = 3: three patterns of order 2, one of order 3
    reference = salient(("and", 5, 1.0), ("and", 6, 1.0), ("and", 3, -1.0), ("and", 7, 1.0))
    assert generalized(rows, reference) == {
        ("and", 3): (False, 2 / 3),
        ("and", 6): (False, 1 / 3),
        ("or", 3): (False, 0),
        ("and", 7): (True, 1),
    }


def test_without_a_reference_generalizability_is_unknown():
    table = add_generalizability(classify({0: salient(("and", 3, 1.0))}), None, 3)
    assert table.select("generalizable", "chance").rows() == [(None, None)]


def test_a_reference_without_salient_interactions_shares_none():
    found = generalized(salient(("and", 3, 1.0)), salient())
    assert found == {("and", 3): (False, 0)}


def test_weak_effects_have_a_sign_too():
    rows = salient(("and", 3, -0.5), ("and", 5, 0.5), ("and", 6, 0.5))
    found = generalized(rows, salient(("and", 3, 0.5), ("and", 5, -0.5), ("and", 6, 0.25)))
    # n = 3, order 2: two patterns with positive effects, one with a negative one
    assert found == {
        ("and", 3): (False, 1 / 3),
        ("and", 5): (False, 2 / 3),
        ("and", 6): (True, 2 / 3),
    }


def test_a_draw_without_rows_stays_a_draw():
    rows = pl.DataFrame(
        {"draw": [0, 2, 2], "step": [1, 2, 3]}, schema_overrides={"draw": pl.UInt32}
    )
    assert [part["step"].to_list() for part in split_draws(rows, 4)] == [
        [1],
        [],
        [2, 3],
        [],
    ]
    with pytest.raises(ValueError, match=r"draw 2 is there, stability\.draws is 2; rebuild"):
        split_draws(rows, 2)
