"""The five findings by tests that can say no."""

import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from sample_tables import SALIENT
from scipy import stats

from sft_interactions import tables
from sft_interactions.analysis.dynamics import add_generalizability, classify
from sft_interactions.analysis.findings import conclude
from sft_interactions.analysis.planted import SCENARIOS, plant
from sft_interactions.analysis.protocol import (
    PARTS,
    Quantities,
    examine,
    examine_over_seeds,
    tabulate_over_seeds,
)
from sft_interactions.analysis.turnover import Stage

N = 4
# So many that a γ of 0 in all of them is below 0.1.
SAMPLES = [f"s{i}" for i in range(40)]
STEPS = [0, 10, 20, 30, 40]
KEPT = ((1, 2.0), (2, 1.5))
NOISE = ((7, 1.0), (11, -1.0), (13, 1.0), (14, -1.0), (15, 1.0), (3, -1.0))
EARLY = ((4, 1.0), (12, 0.5))
LATE = ((7, 0.5), (11, -0.5), (13, 0.5), (14, -0.6), (10, 0.5), (5, -0.5), (9, 0.5), (6, -0.5))
MANY = (*EARLY, *LATE[4:], (8, 0.5))
STORY = (
    KEPT + NOISE,
    KEPT + EARLY,
    KEPT + EARLY + LATE[:2],
    KEPT + EARLY[:1] + LATE[:5],
    KEPT + EARLY[:1] + LATE,
)


def salient(interactions):
    """The same in every sample, and none to two more that never change, so that samples differ."""
    rows = [
        (sample, kind, pattern, pattern.bit_count(), effect)
        for number, sample in enumerate(SAMPLES)
        for kind, part in (("and", interactions), ("or", [(3, 0.5), (5, 0.5)][: number % 3]))
        for pattern, effect in part
    ]
    return pl.DataFrame(rows, schema=SALIENT, orient="row")


def examined(story=STORY, reference=KEPT + EARLY):
    classes = classify({step: salient(part) for step, part in zip(STEPS, story, strict=True)})
    dynamics = add_generalizability(classes, reference and salient(reference), N)
    return examine(dynamics, SAMPLES, STEPS, N, level=0.95)


def findings_of(tested):
    rows = conclude(tested.parts.with_columns(run=pl.lit("r")))
    return dict(rows.select("finding", "verdict").rows())


def parts_of(tested, verdict):
    return tested.parts.filter(pl.col("verdict") == verdict)["part"].to_list()


def parts_of_run(tested, name):
    return tested.parts.filter(part=name)["value"].to_list()


def test_a_run_that_does_what_the_paper_says_supports_every_finding():
    tested = examined()
    assert tested.stage.step == 10
    assert parts_of(tested, "supported") == [part.name for part in PARTS]
    assert findings_of(tested) == dict.fromkeys(range(1, 6), "supported")
    table = tables.check(
        tested.parts.with_columns(run=pl.lit("r")), tables.FINDING_PARTS, "protocol_parts"
    )
    values = dict(table.select("part", "value").iter_rows())
    before = 8 + sum(number % 3 for number in range(len(SAMPLES))) / len(SAMPLES)
    assert values["1.1 few"] == pytest.approx((2 - 6) / before)
    assert values["2.1 many"] == pytest.approx((8 - 1) / before)
    # 15 and 3 go for good at once; the other four of the noise are back at the end.
    assert values["3.2 most"] == 1
    assert values["3.3 short"] == 0.25


@pytest.mark.parametrize(
    ("changed", "contradicted"),
    [
        ({"story": (STORY[0], *[KEPT + MANY] * 2, *[KEPT + MANY + LATE[:2]] * 2)}, ["1.1 few"]),
        ({"story": (*STORY[:2], *[KEPT + EARLY] * 3)}, []),
        ({"reference": NOISE}, ["1.3 high γ", "4.2 γ ≈ 0", "5.3 γ > 1/2", "5.4 highest γ"]),
    ],
    ids=["many come early", "nothing comes later", "what goes is shared"],
)
def test_what_is_not_so_is_not_supported(changed, contradicted):
    tested = examined(**changed)
    assert set(contradicted) <= set(parts_of(tested, "contradicted"))
    assert findings_of(tested)[2 if not contradicted else int(contradicted[0][0])] != "supported"


def test_what_is_seen_once_is_taken_from_the_early_removals():
    once = ((8, 0.5),)
    story = (
        (*KEPT, *NOISE, (4, 1.0)),
        (*KEPT, (4, 1.0)),
        (*KEPT, (4, 1.0), *once),
        (*KEPT, (4, -1.0)),
        KEPT,
    )
    tested = examined(story)
    assert tested.stage.step == 10
    # 6 go early and 1 late; 8, and 4 with the other sign, are seen once: two at three checkpoints.
    (value,) = parts_of_run(tested, "3.2 most")
    assert value == pytest.approx((6 - 2 / 3) / (7 - 2 / 3))


def test_a_share_of_nothing_is_undefined():
    once = tuple((pattern, 0.5) for pattern in (5, 6, 9, 10, 12, 8))
    story = (KEPT + NOISE[:2], KEPT, KEPT + once, KEPT, KEPT)
    classes = classify({step: salient(part) for step, part in zip(STEPS, story, strict=True)})
    dynamics = add_generalizability(classes, None, N)
    q = Quantities(dynamics, SAMPLES, STEPS, Stage("10", 10, 10, 10), N)
    (most,) = (part for part in PARTS if part.name == "3.2 most")
    assert q.by_chance().tolist() == pytest.approx([2.0] * (1 + len(SAMPLES)))
    assert np.isnan(most.compute(q)).all()


def test_without_a_reference_model_γ_is_undefined():
    tested = examined(reference=None)
    undefined = tested.parts.filter(pl.col("value").is_null())["part"].to_list()
    assert undefined == [part.name for part in PARTS if "γ" in part.name]
    assert findings_of(tested)[3] == "supported"


def test_where_there_is_no_stage_finding_3_is_contradicted_and_nothing_is_said_of_the_others():
    tested = examined(story=[KEPT + NOISE] * 5)
    assert tested.stage.answer == "none"
    assert tested.parts["value"].null_count() == len(PARTS)
    assert findings_of(tested) == {
        3: "contradicted",
        **dict.fromkeys((1, 2, 4, 5), "inconclusive"),
    }


def test_a_stage_that_ends_at_no_checkpoint_is_refused():
    dynamics = add_generalizability(classify({0: salient(KEPT), 10: salient(KEPT)}), None, N)
    with pytest.raises(ValueError, match=r"stage: none is no checkpoint; give one of \[0, 10\]"):
        Quantities(dynamics, SAMPLES, [0, 10], Stage("none"), N)


def test_docs_name_every_part_with_its_claim():
    text = (Path(__file__).parents[3] / "docs" / "protocol.md").read_text()
    for part in PARTS:
        row = next(line for line in text.splitlines() if line.startswith(f"| {part.name} |"))
        assert row.endswith(f"| {part.side} {part.threshold:g} |")
    assert len(re.findall(r"^\| [1-5]\.\d ", text, re.MULTILINE)) == len(PARTS)


@pytest.mark.slow
@pytest.mark.parametrize(
    "scenario", ["unchanged", "independent", "two_stages", "as_claimed", "slow_removal"]
)
def test_the_truth_of_planted_runs(scenario):
    """Without noise: no stage is found where there is none, and the planted one where there is."""
    assert scenario in SCENARIOS
    run = plant(scenario, 5, 20)
    salience = {"rule": "max_effect", "threshold": 0.05}
    dynamics = add_generalizability(
        classify(run.salient(salience)), run.reference_salient(salience), run.n_players
    )
    tested = examine(dynamics, list(run.samples), run.steps, run.n_players, level=0.95)
    has_stages = scenario in ("two_stages", "as_claimed")
    end = {"two_stages": 2, "as_claimed": 2, "slow_removal": 1}.get(scenario)
    assert tested.stage.step == end
    assert findings_of(tested)[3] == ("supported" if has_stages else "contradicted")
    (early,) = parts_of_run(tested, "3.2 most")
    assert early == pytest.approx({2: 1.0, 1: 0.375}[end], abs=0.1) if end else early is None


@pytest.mark.slow
def test_every_part_is_so_where_all_is_planted_as_claimed():
    run = plant("as_claimed", 8, 60)
    salience = {"rule": "max_effect", "threshold": 0.05}
    dynamics = add_generalizability(
        classify(run.salient(salience)), run.reference_salient(salience), run.n_players
    )
    tested = examine(dynamics, list(run.samples), run.steps, run.n_players, level=0.95)
    assert set(tested.parts["verdict"]) == {"supported"}


def repeats(scenario, n_seeds, n_samples=8):
    """A planted fine-tuning with several seeds, without noise, by the protocol."""
    salience = {"rule": "max_effect", "threshold": 0.05}
    tested = []
    for training in range(n_seeds):
        run = plant(scenario, 6, n_samples, training=training)
        rows = add_generalizability(
            classify(run.salient(salience)), run.reference_salient(salience), run.n_players
        )
        tested.append(examine(rows, list(run.samples), run.steps, run.n_players, level=0.95))
    return tested


def test_a_part_over_seeds_is_the_mean_and_takes_both_as_drawn():
    tested = repeats("two_stages", 3)
    parts = {row["part"]: row for row in examine_over_seeds(tested, 0.95).iter_rows(named=True)}
    low = np.stack([one.values["1.2 low order"] for one in tested])
    row = parts["1.2 low order"]
    assert row["value"] == pytest.approx(low[:, 0].mean())
    half = (row["ci_high"] - row["ci_low"]) / 2
    assert row["value"] == pytest.approx((row["ci_high"] + row["ci_low"]) / 2)
    # By hand: samples, then seeds; Welch's degrees of freedom.
    mean = low.mean(axis=0)
    of_samples = 7 / 8 * ((mean[1:] - mean[1:].mean()) ** 2).sum()
    of_seeds = low[:, 0].var(ddof=1) / 3
    freedom = (of_samples + of_seeds) ** 2 / (of_samples**2 / 7 + of_seeds**2 / 2)
    reach = stats.t.ppf(0.975, freedom) * np.sqrt(of_samples + of_seeds)
    assert half == pytest.approx(reach)
    ends = np.stack([one.values["3.1 falls"] for one in tested])
    found = [parts["3.1 falls"][key] for key in ("value", "ci_low", "ci_high")]
    assert found == pytest.approx([ends[:, 0].mean(), ends[:, 1].min(), ends[:, 2].max()])
    assert parts["3.1 falls"]["verdict"] == "supported"


def test_two_seeds_are_no_verdict():
    rows = tabulate_over_seeds(repeats("two_stages", 3)[:2], 0.95)
    assert rows["verdict"].unique().to_list() == ["inconclusive"]
    assert rows["finding_verdict"].unique().to_list() == ["inconclusive"]
    assert rows["value"].null_count() < len(rows) / 4
    assert rows["denoising_ends"].unique().to_list() == ["2, 2"]


def test_a_stage_that_no_seed_has_is_contradicted_and_one_that_one_lacks_is_not():
    never = repeats("independent", 3, 20)
    assert {one.stage.answer for one in never} == {"none"}
    rows = tabulate_over_seeds(never, 0.95)
    assert rows.filter(finding=3)["finding_verdict"].to_list() == ["contradicted"] * 3
    assert set(rows.filter(pl.col("finding") != 3)["verdict"]) == {"inconclusive"}
    mixed = [*repeats("two_stages", 2, 20), never[0]]
    rows = tabulate_over_seeds(mixed, 0.95)
    assert set(rows["verdict"]) == {"inconclusive"}
    assert rows["value"].is_null().all()
