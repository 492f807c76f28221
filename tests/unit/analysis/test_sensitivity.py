"""Findings under other choices."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from sft_interactions import tables
from sft_interactions.analysis import sensitivity
from sft_interactions.analysis.dynamics import add_generalizability, classify
from sft_interactions.analysis.findings import conclude, measure_parts
from sft_interactions.analysis.metrics import Cells, ratios
from sft_interactions.analysis.salience import select_salient
from sft_interactions.analysis.selection import Selector, extract_with_shares
from sft_interactions.analysis.sensitivity import (
    Choice,
    choices,
    last_present_effects,
    vary_findings,
    vary_salience,
)
from sft_interactions.analysis.stability import UnchangedRun, noise_perturbation
from sft_interactions.analysis.stages import detect_stages
from sft_interactions.extraction.interactions import from_extraction
from sft_interactions.extraction.program import NOISE_SCALES, extract
from sft_interactions.extraction.tie_break import TIE_BREAKS
from sft_interactions.figures import survival

OWN = Choice({"rule": "max_effect", "threshold": 0.05}, 0.04)
SAMPLES = [f"s{i}" for i in range(6)]
SETTINGS = {
    "stability": {"samples": 6, "churn_noise": 1e-3, "draws": 2},
    "bootstrap": {"resamples": 40, "level": 0.95},
    "removed_share": 0.9,
    "seed": 0,
}


@pytest.fixture(scope="module")
def values():
    random = np.random.default_rng(0)
    return {step: random.normal(size=(6, 8)) for step in (0, 2, 5, 9)}


def other_masking(values):
    """v under another mask embedding: all differs but v(N)."""
    return {key: v[:, [1, 2, 3, 4, 5, 6, 0, 7]] for key, v in values.items()}


def vary(values, **tested):
    reference = {"before SFT": values[0] + 0.05, "tuned": values[9]}
    by_kind = {"token": values, "zero": other_masking(values)}
    references = {"token": reference, "zero": other_masking(reference)}
    rows = vary_findings(by_kind, references, SAMPLES, {"own": OWN, **tested}, **SETTINGS)
    return tables.check(rows, tables.SENSITIVITY, "test")


def differs(table, finding):
    own, other = (
        table.filter(position=position, finding=finding).drop("position", "choice", "boundary_step")
        for position in (0, 1)
    )
    return not own.equals(other)


def test_choices_vary_one_thing_at_a_time():
    rules = [dict(OWN.salience), {"rule": "top_k", "threshold": 5}]
    scales = ["sample", "mean", "range"]
    found = choices(
        OWN, rules, [0, 0.04], scales, ["hash-1"], ["token", "mean"], has_reference=True
    )
    assert list(found) == [
        "the study's own",
        "salience: top_k 5",
        "noise bound ζ: 0",
        "noise scale: mean",
        "noise scale: range",
        "tie-break: hash-1",
        "reading: certain",
        "reading: joint",
        "mask embedding: mean",
        "removed effect: last present",
        "γ: by count",
        "reference model: tuned",
    ]
    for name, choice in list(found.items())[1:]:
        changed = [key for key in vars(OWN) if vars(choice)[key] != vars(OWN)[key]]
        assert len(changed) == 1, name
    without = choices(OWN, [], [], [], [], [], has_reference=False)
    readings = ["reading: certain", "reading: joint"]
    assert list(without) == ["the study's own", *readings, "removed effect: last present"]
    stable = replace(OWN, salience={"rule": "stable", "threshold": 0.05, "stable_share": 0.8})
    assert not set(readings) & set(choices(stable, [], [], [], [], [], has_reference=False))


def test_every_choice_has_every_finding_in_its_order(values):
    table = vary(values, other=replace(OWN, noise_ratio=0.0))
    assert table["finding"].to_list() == [1, 2, 3, 4, 5] * 2
    assert table["choice"].to_list() == ["own"] * 5 + ["other"] * 5
    assert set(table["boundary_step"]) <= {2, 5}


def test_the_same_choice_gives_the_same_result(values):
    table = vary(values, other=replace(OWN))
    assert not any(differs(table, finding) for finding in range(1, 6))


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [
        {"salience": {"rule": "top_k", "threshold": 3}},
        {"noise_ratio": 0.3},
        {"noise_scale": "mean"},
        {"noise_scale": "range"},
        {"tie_break": "high_order"},
        {"reading": "certain"},
        {"reading": "joint"},
        {"gamma": "gamma_by_count"},
        {"reference_model": "tuned"},
        {"mask_embedding": "zero"},
    ],
    ids=str,
)
def test_a_choice_makes_a_difference(values, change):
    table = vary(values, other=replace(OWN, **change))
    assert any(differs(table, finding) for finding in range(1, 6))


def test_effects_of_removed_interactions_at_the_last_time_they_were_present():
    schema = {
        "sample_id": pl.String,
        "kind": tables.KIND,
        "pattern": pl.UInt32,
        "order": pl.UInt8,
        "effect": pl.Float64,
    }

    def frame(*rows):
        return pl.DataFrame([("a", *row) for row in rows], schema=schema, orient="row")

    salient = {
        0: frame(("and", 1, 1, 1.0), ("or", 3, 2, 5.0), ("and", 3, 2, 7.0)),
        2: frame(("and", 1, 1, 2.0)),
        5: frame(("or", 3, 2, 6.0)),
        9: frame(),
    }
    rows = last_present_effects(classify(salient), salient, [0, 2, 5, 9])
    assert rows.columns == classify(salient).columns

    def effects(step, label):
        chosen = rows.filter(pl.col("class") == label, step=step)
        return {(k, p): e for k, p, e in chosen.select("kind", "pattern", "effect").rows()}

    assert effects(2, "removed") == {("or", 3): 5.0, ("and", 3): 7.0}
    assert effects(5, "removed") == {("and", 1): 2.0, ("and", 3): 7.0}
    assert effects(9, "removed") == {("and", 1): 2.0, ("or", 3): 6.0, ("and", 3): 7.0}
    assert effects(2, "preserved") == {("and", 1): 2.0}
    assert effects(5, "emerged") == {("or", 3): 6.0}


def test_gamma_by_count_gives_every_interaction_one_vote():
    rows = [
        ("a", 0, "preserved", "and", pattern, 1, effect, good, 0.5)
        for pattern, effect, good in ((1, 9.0, True), (2, 1.0, False), (4, 1.0, False))
    ]
    frame = pl.DataFrame(rows, schema=tables.DYNAMICS.columns, orient="row")
    cell = Cells(frame, ["a"]).rows(0, "preserved")
    found = {
        metric: (numerator / denominator).item()
        for order, metric, numerator, denominator in ratios(cell, "both", 1, 3)
        if order is None
    }
    assert found["gamma"] == pytest.approx(9 / 11)
    assert found["gamma_by_count"] == pytest.approx(1 / 3)
    assert found["gamma_by_count_chance"] == pytest.approx(0.5)


@pytest.mark.slow
def test_choices_share_an_extraction(values, monkeypatch):
    solved = []

    def count(v, **settings):
        solved.append(settings)
        return extract(v, **settings)

    monkeypatch.setattr(sensitivity, "extract", count)
    vary(values, other=replace(OWN, gamma="gamma_by_count"))
    assert len(solved) == 4 + 2  # checkpoints and references, once
    vary(values, other=replace(OWN, mask_embedding="zero"))
    assert len(solved) == 3 * (4 + 2)


@pytest.mark.slow
def test_everything_is_taken_under_the_mask_embedding_of_a_choice(values):
    reference = {"before SFT": values[0] + 0.05, "tuned": values[9]}
    other = replace(OWN, mask_embedding="zero")
    expected = vary_findings(
        {"zero": other_masking(values)},
        {"zero": other_masking(reference)},
        SAMPLES,
        {"alone": other},
        **SETTINGS,
    )
    expected = tables.check(expected, tables.SENSITIVITY, "test").drop("position", "choice")
    found = vary(values, other=other).filter(choice="other").drop("position", "choice")
    assert found.equals(expected)


@pytest.mark.slow
def test_mask_embeddings_without_a_reference_model(values):
    by_kind = {"token": values, "zero": other_masking(values)}
    tested = choices(OWN, [], [], [], [], list(by_kind), has_reference=False)
    rows = vary_findings(by_kind, {}, SAMPLES, tested, **SETTINGS)
    assert rows["choice"].unique(maintain_order=True).to_list() == list(tested)


STABLE = {"rule": "stable", "threshold": 0.05, "stable_share": 0.7}
SELECTION = {"draws": 2, "noise": 0.05, "noise_ratios": [0.02, 0.08], "tie_breaks": ["high_order"]}


@pytest.mark.slow
def test_a_study_of_stable_interactions_has_them_under_every_choice(values):
    reference = {"before SFT": values[0] + 0.05, "tuned": values[9]}
    errors = {step: 0.01 * (1 + step) for step in values}
    own = replace(OWN, salience=STABLE)
    rows = vary_findings(
        {"token": values},
        {"token": reference},
        SAMPLES,
        {"own": own, "other": OWN, "ratio": replace(own, noise_ratio=0.1)},
        **SETTINGS,
        errors={"token": errors},
        reference_errors={"token": {"before SFT": 0.02, "tuned": 0.03}},
        selection=SELECTION,
    )
    found = rows.filter(choice="own").drop("position", "choice", "boundary_step")

    # The same by the stages of the workflow.
    selector = Selector(SELECTION, STABLE, SETTINGS["seed"])

    def salient(v, error):
        return select_salient(*extract_with_shares(v, SAMPLES, selector, error=error), **STABLE)

    at_steps = {step: salient(v, errors[step]) for step, v in values.items()}
    in_reference = salient(reference["before SFT"], 0.02)
    run = UnchangedRun(
        values[0],
        SAMPLES,
        list(values),
        noise_perturbation(1e-3),
        noise_ratio=0.04,
        draws=2,
        seed=0,
        errors=errors,
        add_shares=selector,
    )
    dynamics, *floor = [
        tables.check(add_generalizability(rows, in_reference, 3), tables.DYNAMICS, "test")
        for rows in (classify(at_steps), *run.classify(STABLE))
    ]
    bootstrap = SETTINGS["bootstrap"]
    stages = detect_stages(dynamics, None, SAMPLES, list(values), 3, share=0.9, seed=0, **bootstrap)
    parts = measure_parts(
        dynamics, floor, SAMPLES, list(values), stages, 3, unchanged_samples=6, seed=0, **bootstrap
    )
    expected = conclude(parts.with_columns(run=pl.lit(""))).drop("run")
    assert found.equals(expected.select(found.columns))
    unlike = rows.filter(choice="other").drop("position", "choice", "boundary_step")
    assert not unlike.equals(found)


def test_stable_interactions_need_their_settings_and_one_threshold(values):
    own = replace(OWN, salience=STABLE)
    with pytest.raises(ValueError, match="selection: missing; the salience rule stable needs it"):
        vary(values, other=own)
    twice = {"a": own, "b": replace(own, salience={**STABLE, "threshold": 0.1})}
    with pytest.raises(ValueError, match="the rule stable can be the study's own alone"):
        vary_findings({"token": values}, {}, SAMPLES, twice, **SETTINGS, selection=SELECTION)


def test_settings_that_a_rule_leaves_alone_make_no_choice():
    own = replace(OWN, salience={**OWN.salience, "stable_share": 0.8})
    found = choices(own, [dict(OWN.salience)], [], [], [], [], has_reference=False)
    assert not any(name.startswith("salience") for name in found)


def test_salience_sweep_matches_a_single_rule(values):
    pair = from_extraction(SAMPLES, values[0], extract(values[0]))
    sweep = [dict(OWN.salience), {"rule": "top_k", "threshold": 2}]
    table = vary_salience({0: pair, 1: pair}, pair, sweep, 3)
    counts = table.filter(pl.col("class") == "preserved").rows_by_key(
        ["rule", "step"], named=True, unique=True
    )
    expected = select_salient(*pair, **OWN.salience).height / len(SAMPLES)
    assert counts["max_effect", 0]["count"] == pytest.approx(expected)
    assert counts["top_k", 1]["count"] == 2
    assert counts["top_k", 1]["gamma"] == 1  # the reference model is the LLM itself here


def test_names_of_choices_fit_beside_the_figure():
    kinds = ("token", "mean", "zero", "learned")
    names = list(choices(OWN, [], [], NOISE_SCALES, [*TIE_BREAKS], kinds, has_reference=True))
    cells = [
        (position, name, finding, "supported", 2, 3)
        for position, name in enumerate(names)
        for finding in range(1, 6)
    ]
    columns = ["position", "choice", "finding", "verdict", "parts_supported", "parts"]
    table = pl.DataFrame(cells, schema=columns, orient="row")
    figure = survival.draw({"A run": table}, level=0.95)
    canvas = FigureCanvasAgg(figure)
    labels = figure.axes[0].get_yticklabels()
    assert [label.get_text() for label in labels] == names
    for label in labels:
        assert label.get_window_extent(canvas.get_renderer()).x0 >= 0, label.get_text()
