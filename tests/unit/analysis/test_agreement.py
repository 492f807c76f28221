"""What the seeds of one fine-tuning share."""

from itertools import permutations

import numpy as np
import polars as pl
import pytest
from sample_tables import dynamics_of

from sft_interactions.analysis.agreement import tabulate

SAMPLES = list("abcdef")


def row(table, step, label):
    return table.filter(pl.col("class") == label, step=step).row(0, named=True)


def test_what_is_shared_has_the_same_class_and_sign():
    # Of both: 1 preserved, 2 emerged. 3 is of another sign, 4 of another class, 5 of one seed alone.
    one = dynamics_of(
        {"a": {1: 1.0, 4: 1.0, 6: 1.0}}, {"a": {1: 1.0, 2: 1.0, 3: 1.0, 4: 1.0, 5: 1.0}}
    )
    other = dynamics_of({"a": {1: 1.0, 6: 1.0, 7: 1.0}}, {"a": {1: 2.0, 2: 0.5, 3: -1.0, 4: 1.0}})
    table = tabulate([one, other], ["a"], [0, 10], 0.95)
    found = {
        (r["step"], r["class"]): (r["count"], r["shared"]) for r in table.iter_rows(named=True)
    }
    assert found == {
        (0, "salient"): (3.0, 2.0),
        (10, "salient"): (4.5, 3.0),
        (10, "preserved"): (1.5, 1.0),
        (10, "emerged"): (3.0, 1.0),
        (10, "removed"): (1.5, 1.0),
    }
    assert row(table, 10, "salient")["agreement"] == pytest.approx(3 / 4.5)
    # One sample has no other to meet, and no interval.
    assert row(table, 10, "salient")["shared_by_chance"] is None
    assert row(table, 10, "salient")["ci_low"] is None


def test_a_seed_and_itself_share_all():
    run = dynamics_of({"a": {1: 1.0, 2: -1.0}, "b": {3: 1.0}}, {"a": {1: 1.0}, "b": {4: 1.0}})
    table = tabulate([run, run, run], ["a", "b"], [10, 0], 0.95)
    assert table["agreement"].to_list() == [1.0] * 5
    assert table["shared"].to_list() == table["count"].to_list()
    assert table["step"].to_list() == [0, 10, 10, 10, 10]


def test_nothing_to_share_is_no_agreement():
    run = dynamics_of({"a": {1: 1.0}}, {"a": {1: 1.0}})
    emerged = row(tabulate([run, run], ["a"], [0, 10], 0.95), 10, "emerged")
    assert (emerged["count"], emerged["agreement"], emerged["ci_low"]) == (0.0, None, None)


def test_three_seeds_by_hand_with_chance_and_interval():
    rng = np.random.default_rng(0)

    def draw():
        return {
            sample: {
                int(p): float(rng.choice([-1, 1])) for p in rng.choice(31, 9, replace=False) + 1
            }
            for sample in SAMPLES
        }

    before, ends = draw(), [draw() for _ in range(3)]
    table = tabulate([dynamics_of(before, end) for end in ends], SAMPLES, [0, 10], 0.95)
    assert row(table, 0, "salient")["agreement"] == 1.0
    found = row(table, 10, "salient")
    shared = np.array(
        [
            np.mean(
                [len(one[s].items() & other[s].items()) for one, other in permutations(ends, 2)]
            )
            for s in SAMPLES
        ]
    )
    assert found["shared"] == pytest.approx(shared.mean())
    assert found["agreement"] == pytest.approx(shared.sum() / (9 * len(SAMPLES)))
    by_chance = [
        len(one[s].items() & other[t].items())
        for one, other in permutations(ends, 2)
        for s, t in permutations(SAMPLES, 2)
    ]
    assert found["shared_by_chance"] == pytest.approx(np.mean(by_chance))
    assert found["ci_low"] < found["agreement"] < found["ci_high"]
    # Drawn apart, they share what chance would have them share.
    assert found["ci_low"] < np.mean(by_chance) / 9 < found["ci_high"]


def test_what_nearly_all_seeds_lose_is_shared_by_chance():
    before = {"a": dict.fromkeys(range(1, 11), 1.0), "b": {}}
    one, other = (
        dynamics_of(before, {"a": dict.fromkeys(kept, effect), "b": {}})
        for kept, effect in (((1, 2), 1.0), ((2, 3, 4), -1.0))
    )
    table = tabulate([one, other], ["a", "b"], [0, 10], 0.95)
    removed, preserved = (row(table, 10, label) for label in ("removed", "preserved"))
    assert (removed["shared"], removed["shared_by_chance"]) == (
        6 / 2,
        pytest.approx(8 * 7 / 10 / 2),
    )
    # A preserved one that has changed its sign is not shared, and is by chance.
    assert (preserved["shared"], preserved["shared_by_chance"]) == (0, pytest.approx(0.6 / 2))


def test_one_seed_is_no_agreement():
    run = dynamics_of({"a": {1: 1.0}}, {"a": {1: 1.0}})
    with pytest.raises(ValueError, match="two seeds or more, not of 1"):
        tabulate([run], ["a"], [0, 10], 0.95)
