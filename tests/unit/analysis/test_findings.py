from pathlib import Path

import numpy as np
import polars as pl
import pytest

from sft_interactions import tables
from sft_interactions.analysis import findings
from sft_interactions.analysis.dynamics import add_generalizability, classify
from sft_interactions.analysis.findings import (
    agreeing,
    conclude,
    open_where_all_agree,
    verdict_of,
)
from sft_interactions.analysis.metrics import Ratio, compute_metrics

N = 4
STEPS = [0, 10, 40]
# So many that a γ of 0 in all of them is below 0.1.
SAMPLES = [f"s{i}" for i in range(40)]
STAGES = {"boundary_step": 10, "ci_low_step": 10, "ci_high_step": 10}
ROWS = {"sample_id": pl.String, "kind": tables.KIND, "pattern": pl.UInt32, "order": pl.UInt8}
SETTINGS = {"unchanged_samples": 40, "level": 0.95}


def salient(*sets):
    """Interactions (pattern, effect), the same in every sample, from several tuples of them."""
    rows = [
        (sample_id, "and", pattern, pattern.bit_count(), effect)
        for sample_id in SAMPLES
        for part in sets
        for pattern, effect in part
    ]
    return pl.DataFrame(rows, schema={**ROWS, "effect": pl.Float64}, orient="row")


KEPT = ((1, 2.0), (2, 1.5))
NOISE = ((7, 1.0), (11, -1.0), (13, 1.0), (14, -1.0), (15, 1.0), (3, -1.0))
EARLY = ((4, 1.0), (12, 0.2))
LATE = ((7, 0.5), (11, -0.5), (13, 0.5), (14, -0.6), (10, 0.5), (5, -0.5), (9, 0.5), (6, -0.5))


def run(
    *,
    early=EARLY,
    late=LATE,
    before=KEPT + NOISE,
    reference=KEPT + EARLY,
    stages=STAGES,
    samples=SAMPLES,
    **options,
):
    """Parts on a run that does what the paper says, unless told otherwise."""
    classes = classify(
        {0: salient(before), 10: salient(KEPT, early), 40: salient(KEPT, early, late)}
    )
    reference = reference and salient(reference)
    unchanged = classify({step: salient(before) for step in STEPS})
    classes, unchanged = (
        rows.filter(pl.col("sample_id").is_in(samples)) for rows in (classes, unchanged)
    )
    arguments = [
        add_generalizability(classes, reference, N),
        [add_generalizability(unchanged, reference, N)],
        samples,
        STEPS,
        stages,
        N,
    ]
    return findings.measure_parts(*arguments, **{**SETTINGS, **options})


def verdicts(parts):
    return dict(parts.select("part", "verdict").rows())


def decided(parts):
    rows = conclude(parts.with_columns(run=pl.lit("a-b")))
    return dict(rows.select("finding", "verdict").rows())


def test_a_run_that_does_what_the_paper_says_supports_every_finding():
    parts = run()
    assert set(verdicts(parts).values()) == {"supported"}
    assert decided(parts) == dict.fromkeys(range(1, 6), "supported")


def test_docs_name_every_part_its_claim_and_every_statement():
    text = (Path(__file__).parents[3] / "docs" / "findings.md").read_text()
    for part in run().iter_rows(named=True):
        row = next(line for line in text.splitlines() if line.startswith(f"| {part['part']} |"))
        assert f"| {part['claim']} |" in row
    for number, statement in findings.STATEMENTS.items():
        assert f"| **{number}** | *{statement}* |" in text


def test_values_are_those_of_the_metrics():
    parts = {row["part"]: row for row in run().iter_rows(named=True)}
    classes = classify(
        {0: salient(KEPT, NOISE), 10: salient(KEPT, EARLY), 40: salient(KEPT, EARLY, LATE)}
    )
    dynamics = add_generalizability(classes, salient(KEPT, EARLY), N)
    table = compute_metrics(dynamics, SAMPLES, STEPS, N, level=0.9)

    def metric(name, label, step):
        rows = table.filter(pl.col("order").is_null(), metric=name, kind="both", step=step)
        return rows.filter(pl.col("class") == label)["value"].item()

    def above(name, label, step):
        return metric(name, label, step) - metric(f"{name}_chance", label, step)

    assert parts["1.1 few"]["value"] == pytest.approx(2 / 8)
    order = metric("mean_order", "preserved", 0) - metric("mean_order", "emerged", 10)
    assert parts["1.2 low order"]["value"] == pytest.approx(order)
    rho = above("rho", "emerged", 10) - above("rho", "removed", 10)
    assert parts["1.4 high ρ"]["value"] == pytest.approx(rho)
    gamma = above("gamma", "emerged", 10) - above("gamma", "emerged", 40)
    assert parts["2.3 low γ"]["value"] == pytest.approx(gamma)
    entropy = [
        metric("cross_entropy", *cell)
        for cell in (("emerged", 40), ("removed", 40), ("preserved", 40), ("emerged", 10))
    ]
    expected = min(entropy[:2]) - max(entropy[2:])
    assert parts["5.6 carry"]["value"] == pytest.approx(expected)
    assert parts["3.2 most"]["value"] == pytest.approx(1)
    assert parts["3.3 short"]["value"] == pytest.approx(10 / 40)


def test_many_early_ones_contradict_the_first_finding():
    parts = run(early=EARLY + LATE, late=())
    assert verdicts(parts)["1.1 few"] == "contradicted"
    assert decided(parts)[1] == "contradicted"
    assert (
        verdicts(parts)["2.1 many"] == "inconclusive"
    )  # no growth at all, exactly on the threshold


def test_a_finding_shows_the_first_part_that_decides():
    parts = run(early=EARLY + LATE, late=()).with_columns(run=pl.lit("a-b"))
    row = conclude(parts).filter(finding=1).row(0, named=True)
    assert row["part"] == "1.1 few"
    assert row["parts"] == 4
    contradicted = parts.filter(finding=1, verdict="contradicted")
    assert row["parts_contradicted"] == len(contradicted) > 0


def test_changes_within_the_churn_floor_are_not_counted():
    # Noise alone is made to remove what the run removes.
    before = salient(KEPT, NOISE)
    classes = classify({0: before, 10: salient(KEPT), 40: salient(KEPT)})
    rows = add_generalizability(classes, None, N)
    parts = findings.measure_parts(rows, [rows], SAMPLES, STEPS, STAGES, N, **SETTINGS)
    found = {row["part"]: row for row in parts.iter_rows(named=True)}
    assert found["3.1 beyond noise"]["value"] == 0
    assert found["3.1 beyond noise"]["verdict"] == "inconclusive"
    assert found["3.2 most"]["value"] is None


def test_a_run_that_loses_less_than_noise_has_no_share_that_goes_early():
    before = salient(KEPT, NOISE)
    floor, rows = (
        add_generalizability(classify({0: before, 10: later, 40: later}), None, N)
        for later in (salient(KEPT), before)
    )
    parts = findings.measure_parts(rows, [floor], SAMPLES, STEPS, STAGES, N, **SETTINGS)
    found = {row["part"]: row for row in parts.iter_rows(named=True)}
    assert found["3.1 beyond noise"]["value"] < 0
    assert (found["3.2 most"]["value"], found["3.2 most"]["verdict"]) == (None, "inconclusive")


def test_without_a_reference_gamma_is_not_judged():
    found = verdicts(run(reference=None))
    gamma = [name for name in found if "γ" in name]
    assert len(gamma) == 5
    assert {found[name] for name in gamma} == {"inconclusive"}
    assert found["1.4 high ρ"] == "supported"


@pytest.mark.parametrize(("step", "missing"), [(0, "123"), (40, "23")])
def test_without_a_stage_its_parts_are_not_judged(step, missing):
    stages = dict.fromkeys(STAGES, step)
    parts = run(stages=stages)
    for number in missing[-2:]:
        chosen = parts.filter(pl.col("part").str.starts_with(number))
        compared = chosen.filter(~pl.col("part").str.starts_with("3.1"))
        assert compared["value"].null_count() == len(compared)
        assert set(compared["verdict"]) == {"inconclusive"}
    assert verdicts(parts)["4.1 high order"] == "supported"
    assert (parts.filter(part="1.1 few")["value"].item() is None) == (step == 0)


def test_few_samples_and_stages_without_an_interval_judge_nothing():
    without = {"boundary_step": 10, "ci_low_step": None, "ci_high_step": None}
    parts = run(stages=without)
    assert verdicts(parts)["3.3 short"] == "inconclusive"
    assert parts.filter(part="3.3 short").select("value", "ci_low").row(0) == (10 / 40, None)
    assert verdicts(parts)["4.1 high order"] == "supported"
    parts = run(unchanged_samples=4)
    assert verdicts(parts)["3.1 beyond noise"] == "inconclusive"
    assert parts.filter(part="3.1 beyond noise")["n_samples"].item() == 4


def test_samples_without_an_interaction_do_not_make_a_part_surer():
    parts = run()
    empty = [f"empty-{number}" for number in range(9)]
    few = run(samples=[*SAMPLES[:4], *empty])
    assert (few["n_samples"] <= 4).all()
    assert set(verdicts(few).values()) == {"inconclusive"}
    assert parts.filter(part="1.1 few")["n_samples"].item() == 40


@pytest.mark.parametrize(("n", "reach"), [(5, 0.522), (8, 0.369), (16, 0.206), (160, 0.023)])
def test_where_all_γ_agree_the_interval_is_that_of_so_many(n, reach):
    (γ,) = (part for part in findings.PARTS if part.name == "4.2 γ ≈ 0")
    low, high = open_where_all_agree(0.0, 0.0, 0.0, n, 0.95)
    assert (low, high) == (pytest.approx(-reach, abs=1e-3), pytest.approx(reach, abs=1e-3))
    # As likely as an interval of 95 % allows on one side.
    assert (1 - high) ** n == pytest.approx(0.025)
    assert verdict_of(γ, low, high, n) == ("supported" if n == 160 else "inconclusive")
    # A wider one stays as it is, and so does one of others.
    assert open_where_all_agree(0.0, -0.6, 0.7, n, 0.95) == (-0.6, 0.7)
    assert open_where_all_agree(0.0, -0.01, 0.01, None, 0.95) == (-0.01, 0.01)
    assert open_where_all_agree(None, None, None, n, 0.95) == (None, None)


def test_what_agrees_is_counted():
    ones, none = np.ones(4), np.zeros(4)
    count = Ratio(None, "count", np.array([1.0, 2.0, 3.0, 0.0]), ones)
    there = np.array([1.0, 1.0, 1.0, 0.0])
    same = {
        "count": count,
        "gamma": Ratio(None, "gamma", none, there),
        "rho": Ratio(None, "rho", there, there),
        "mean_order": Ratio(None, "mean_order", ones, ones),
    }
    # Six interactions in three samples.
    assert [agreeing(name, same) for name in same] == [None, 6, 3, None]
    for numerator, denominator in ((np.array([0.0, 0.5, 0.0, 0.0]), there), (none, none)):
        other = {"count": count, "gamma": Ratio(None, "gamma", numerator, denominator)}
        assert agreeing("gamma", other) is None


def test_one_unshared_interaction_in_each_of_a_few_prompts_is_no_γ_of_0():
    """In five prompts it happens by chance where three in ten are shared, in one of six cases."""
    few = run(samples=SAMPLES[:5], before=KEPT + NOISE[:1], reference=KEPT, late=(), early=())
    (part,) = few.filter(part="4.2 γ ≈ 0").iter_rows(named=True)
    assert (part["n_samples"], part["verdict"]) == (5, "inconclusive")
    many = run(before=KEPT + NOISE[:1], reference=KEPT, late=(), early=())
    assert verdicts(many)["4.2 γ ≈ 0"] == "supported"


@pytest.mark.parametrize(
    ("above", "low", "high", "n", "verdict"),
    [
        (True, 0.6, 0.9, 5, "supported"),
        (True, 0.1, 0.4, 5, "contradicted"),
        (True, 0.4, 0.6, 5, "inconclusive"),
        (False, 0.6, 0.9, 5, "contradicted"),
        (False, 0.1, 0.4, 5, "supported"),
        (False, 0.1, 0.4, 4, "inconclusive"),
        (True, None, None, 9, "inconclusive"),
    ],
)
def test_verdict(above, low, high, n, verdict):
    side = ">" if above else "<"
    part = findings.Part(1, 1, "x", "x", side, 0.5, findings.Quantities.share_of_training)
    assert verdict_of(part, low, high, n) == verdict


def test_parts_are_numbered_within_their_finding_and_their_names_sort_alike():
    numbers = {finding: [] for finding in findings.STATEMENTS}
    for part in findings.PARTS:
        numbers[part.finding].append(part.number)
        assert part.name.startswith(f"{part.finding}.{part.number} ")
    assert all(found == list(range(1, len(found) + 1)) for found in numbers.values())
    names = [part.name for part in findings.PARTS]
    assert names == sorted(names)


def test_what_a_part_needs_is_what_it_compares():
    stages = {part.name: set(part.needs) for part in findings.PARTS}
    assert stages["1.1 few"] == stages["3.1 beyond noise"] == {findings.DENOISING}
    assert stages["2.1 many"] == stages["3.3 short"] == set(findings.BOTH_STAGES)
    assert stages["4.1 high order"] == stages["5.7 beat chance"] == set()
