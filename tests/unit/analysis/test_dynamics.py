import polars as pl
import pytest

from sft_interactions.analysis.dynamics import (
    add_generalizability,
    classify,
    salient_at,
    split_draws,
)
from sft_interactions.tables import CLASS, KIND

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
