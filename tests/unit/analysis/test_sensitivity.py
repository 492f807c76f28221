"""Findings under other choices."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from sft_interactions import tables
from sft_interactions.analysis import sensitivity
from sft_interactions.analysis.choices import SINGLE, Choice, choices, share_out
from sft_interactions.analysis.dynamics import add_generalizability, classify, salient_at
from sft_interactions.analysis.findings import conclude, measure_parts
from sft_interactions.analysis.metrics import Cells, ratios
from sft_interactions.analysis.readings import RunReader
from sft_interactions.analysis.salience import select_salient
from sft_interactions.analysis.selection import Selector, extract_with_shares
from sft_interactions.analysis.sensitivity import (
    classify_run,
    count_extractions,
    extract_checkpoints,
    extract_run,
    findings_of_classes,
    gather_choices,
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
FLOOR = {"samples": 6, "churn_noise": 1e-3, "draws": 2}
TESTED = {"bootstrap": {"resamples": 40, "level": 0.95}, "removed_share": 0.9, "seed": 0}


@pytest.fixture(scope="module")
def values():
    random = np.random.default_rng(0)
    return {step: random.normal(size=(6, 8)) for step in (0, 2, 5, 9)}


def other_masking(values):
    """v under another mask embedding: all differs but v(N)."""
    return {key: v[:, [1, 2, 3, 4, 5, 6, 0, 7]] for key, v in values.items()}


def references_of(values):
    """v of the reference run before SFT and at its last checkpoint."""
    return {0: values[0] + 0.05, 7: values[9]}


def extracted(values, references, choice, reference_errors=None, **settings):
    """A run as a choice extracts it, with its reading beside that of each checkpoint by itself."""
    of_study, seed = replace(choice, reading=SINGLE), TESTED["seed"]
    run = extract_run(of_study, values, SAMPLES, stability=FLOOR, seed=seed, **settings)
    settings = {**settings, "errors": reference_errors}
    of_reference = extract_checkpoints(of_study, references, SAMPLES, seed=seed, **settings)
    taken = min if choice.reference_model == "before SFT" else max
    run = replace(run, references={choice.reference_model: of_reference[taken(of_reference)]})
    if choice.reading == SINGLE:
        return run
    salient, of_reference = (
        RunReader(
            each,
            {step: extract(v, noise_ratio=choice.noise_ratio) for step, v in each.items()},
            SAMPLES,
            choice.tie_break,
        ).salient(choice.reading, choice.salience)
        for each in (values, references)
    )
    return replace(
        run,
        readings={choice.reading: classify(salient)},
        reference_readings={choice.reading: of_reference[taken(of_reference)]},
    )


def vary(values, **tested):
    """The findings under OWN and other choices, job by job."""
    jobs = share_out({"own": OWN, **tested})
    parts = []
    for job in jobs.values():
        choice = next(iter(job.values()))
        references = references_of(values)
        if choice.mask_embedding == "zero":
            parts_of = other_masking(values), other_masking(references)
        else:
            parts_of = values, references
        run = extracted(*parts_of, choice)
        if len(job) > 1 and "tuned" not in run.references:
            other = extracted(*parts_of, replace(choice, reference_model="tuned"))
            run = replace(run, references={**run.references, **other.references})
        parts.append(vary_findings(run, job, **TESTED))
    rows = gather_choices(parts, ["own", *tested])
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
        OWN,
        rules,
        [0, 0.04],
        scales,
        ["hash-1"],
        ["token", "mean"],
        has_reference=True,
        has_readings=True,
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
    # Of a reference run that starts from the run's own model only the tuned one is another model.
    tuned = replace(OWN, reference_model="tuned")
    for own, is_base, others in ((tuned, False, 1), (tuned, True, 0), (OWN, True, 1)):
        found = choices(
            own,
            *[[]] * 5,
            has_reference=True,
            has_readings=False,
            is_reference_base=is_base,
        )
        assert sum(name.startswith("reference model: ") for name in found) == others
    without = choices(OWN, [], [], [], [], [], has_reference=False, has_readings=True)
    readings = ["reading: certain", "reading: joint"]
    assert list(without) == ["the study's own", *readings, "removed effect: last present"]
    neither = choices(OWN, [], [], [], [], [], has_reference=False, has_readings=False)
    assert not set(readings) & set(neither)


def all_choices(noise_ratios=(0, 0.04), tie_breaks=("hash-1",)):
    rules = [{"rule": "top_k", "threshold": 5}, {"rule": "absolute", "threshold": 0.1}]
    return choices(
        OWN,
        rules,
        noise_ratios,
        ["range"],
        tie_breaks,
        ["zero"],
        has_reference=True,
        has_readings=True,
    )


def test_jobs_have_the_choices_of_one_extraction():
    assert {job: list(names) for job, names in share_out(all_choices()).items()} == {
        "own": [
            "the study's own",
            "salience: top_k 5",
            "salience: absolute 0.1",
            "removed effect: last present",
            "γ: by count",
            "reference model: tuned",
        ],
        "noise-ratio-0": ["noise bound ζ: 0"],
        "noise-scale-range": ["noise scale: range"],
        "tie-break-hash-1": ["tie-break: hash-1"],
        "reading-certain": ["reading: certain"],
        "reading-joint": ["reading: joint"],
        "mask-embedding-zero": ["mask embedding: zero"],
    }


def test_another_choice_is_a_job_more_and_leaves_the_others():
    before = share_out(all_choices())
    after = share_out(all_choices(noise_ratios=(0.02, 0, 0.04), tie_breaks=("hash-2", "hash-1")))
    assert after.keys() - before.keys() == {"noise-ratio-0.02", "tie-break-hash-2"}
    assert {job: after[job] for job in before} == before


def test_no_two_settings_have_one_name():
    # Alike in the six digits of the format g.
    near = [0.02, 0.02000000001, 1e-7]
    found = all_choices(noise_ratios=near)
    assert [found[f"noise bound ζ: {one}"].noise_ratio for one in ("0.02", "1e-07")] == [0.02, 1e-7]
    assert sum(name.startswith("noise bound") for name in found) == 3
    assert sum(job.startswith("noise-ratio") for job in share_out(found)) == 3


@pytest.mark.slow
def test_every_choice_has_every_finding_in_its_order(values):
    table = vary(values, other=replace(OWN, noise_ratio=0.0))
    assert table["finding"].to_list() == [1, 2, 3, 4, 5] * 2
    assert table["choice"].to_list() == ["own"] * 5 + ["other"] * 5
    assert set(table["boundary_step"]) <= {2, 5}


@pytest.mark.slow
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


def test_a_job_extracts_each_table_once(values, monkeypatch):
    solved = []

    def count(v, **settings):
        solved.append(settings)
        return extract(v, **settings)

    monkeypatch.setattr(sensitivity, "extract", count)
    done = []
    run = extract_run(OWN, values, SAMPLES, stability=FLOOR, seed=0, progress=done.append)
    assert len(solved) == 4
    vary_findings(run, {"own": OWN, "other": replace(OWN, gamma="gamma_by_count")}, **TESTED)
    assert len(solved) == 4
    assert sum(done) == count_extractions(6, 4, FLOOR) == 6 * 4 + 6 * (1 + 2 * 3)


@pytest.mark.slow
@pytest.mark.parametrize("reference_model", ["before SFT", "tuned"])
@pytest.mark.parametrize("reading", ["single", "joint"])
def test_classes_that_are_shared_give_what_the_tables_give(values, reading, reference_model):
    """A job that extracts, and one that reads its classes and those of the reference run."""
    choice = replace(OWN, reading=reading, reference_model=reference_model)
    reference = {step: v[::-1] + 0.05 for step, v in values.items()}
    step = min(values) if reference_model == "before SFT" else max(values)
    run, other = (
        extract_run(choice, v, SAMPLES, stability=FLOOR, seed=0) for v in (values, reference)
    )
    expected = vary_findings(
        replace(run, references={reference_model: other.checkpoints[step]}),
        {"one": choice},
        **TESTED,
    )
    rows, draws = classify_run(run, choice)
    of_reference, _ = classify_run(other, choice)
    # As files have them: sorted, without what the reference model has.
    on_disk = [
        tables.check(add_generalizability(classes, None, 3), tables.DYNAMICS, "test")
        for classes in (rows, of_reference, *draws)
    ]
    found = findings_of_classes(
        on_disk[0],
        on_disk[2:],
        salient_at(on_disk[1], step),
        SAMPLES,
        3,
        steps=list(values),
        unchanged_samples=6,
        **TESTED,
    )
    assert found.equals(expected.drop("choice"))


@pytest.mark.slow
@pytest.mark.parametrize("reading", ["single", "certain", "joint"])
def test_tables_of_the_study_give_what_an_extraction_gives(values, reading):
    choice = replace(OWN, reading=reading)
    run = extracted(values, references_of(values), choice)
    # As files have them: sorted, the columns in their types.
    of_study = {
        step: (
            tables.check(interactions, tables.INTERACTIONS, "test").lazy(),
            tables.check(solve, tables.SOLVE, "test"),
        )
        for step, (interactions, solve) in run.checkpoints.items()
    }
    interactions, solve = run.unchanged.to_tables()
    unchanged = UnchangedRun(
        values[0],
        SAMPLES,
        list(values),
        noise_perturbation(FLOOR["churn_noise"]),
        noise_ratio=0.04,
        draws=2,
        seed=0,
        solved=(
            tables.check(interactions, tables.UNCHANGED_INTERACTIONS, "test"),
            tables.check(solve, tables.UNCHANGED_SOLVE, "test"),
        ),
    )
    read = replace(run, checkpoints=of_study, unchanged=unchanged)
    for tested in (choice, replace(choice, removed_effect="last_present")):
        expected = vary_findings(run, {"one": tested}, **TESTED)
        assert vary_findings(read, {"one": tested}, **TESTED).equals(expected)


def test_what_a_run_lacks_is_named(values):
    run = extract_run(OWN, values, SAMPLES, stability=FLOOR, seed=0)
    several = {"a": OWN, "b": replace(OWN, noise_ratio=0.1)}
    with pytest.raises(ValueError, match="2 extractions in one job; share the choices out"):
        vary_findings(run, several, **TESTED)
    with pytest.raises(ValueError, match="readings: joint is missing; give its classes"):
        vary_findings(run, {"a": replace(OWN, reading="joint")}, **TESTED)
    other = replace(run, references={"before SFT": run.checkpoints[0]})
    with pytest.raises(ValueError, match="references: tuned is missing; give its tables"):
        vary_findings(other, {"a": replace(OWN, reference_model="tuned")}, **TESTED)
    salient = {
        step: select_salient(*pair, **OWN.salience) for step, pair in run.checkpoints.items()
    }
    read = replace(other, readings={"joint": classify(salient)})
    with pytest.raises(ValueError, match="reference_readings: joint is missing; give its inter"):
        vary_findings(read, {"a": replace(OWN, reading="joint")}, **TESTED)
    fewer = {step: pair for step, pair in run.checkpoints.items() if step != 5}
    with pytest.raises(ValueError, match="checkpoints: not those of the churn floor"):
        vary_findings(replace(run, checkpoints=fewer), {"a": OWN}, **TESTED)


@pytest.mark.parametrize("reading", ["single", "joint"])
def test_a_run_without_a_reference_model(values, reading):
    own = replace(OWN, reading=reading)
    run = extract_run(own, values, SAMPLES, stability=FLOOR, seed=0)
    assert run.references == {}
    assert sorted(run.checkpoints) == sorted(values)


@pytest.mark.slow
def test_a_study_that_reads_its_checkpoints_together_does_so_under_every_choice(values):
    own = replace(OWN, reading="joint", noise_ratio=0.1, tie_break="high_order")
    reference = {step: v[::-1] + 0.05 for step, v in values.items()}
    run = extract_run(own, values, SAMPLES, stability=FLOOR, seed=0)
    of_reference = extract_checkpoints(own, reference, SAMPLES, seed=0)
    run = replace(run, references={"before SFT": of_reference[0]})
    assert run.reading == "joint"

    def read(of_steps):
        settings = {"noise_ratio": 0.1, "tie_break": "high_order"}
        solved = {step: extract(v, **settings) for step, v in of_steps.items()}
        return RunReader(of_steps, solved, SAMPLES, "high_order").salient("joint", OWN.salience)

    expected = read(values)
    for step, pair in run.checkpoints.items():
        assert select_salient(*pair, **OWN.salience).equals(expected[step])
    in_reference = select_salient(*run.references["before SFT"], **OWN.salience)
    assert in_reference.equals(read(reference)[0])
    alone = extract_run(replace(own, reading="single"), values, SAMPLES, stability=FLOOR, seed=0)
    together = vary_findings(run, {"own": own}, **TESTED)
    other = replace(alone, references=run.references)
    assert not vary_findings(other, {"own": replace(own, reading="single")}, **TESTED).equals(
        together
    )
    with pytest.raises(ValueError, match="reading: certain is no choice among the optima"):
        extract_run(replace(own, reading="certain"), values, SAMPLES, stability=FLOOR, seed=0)


def test_an_extraction_that_is_not_certified_stops(values, monkeypatch):
    def loose(v, **settings):
        solved = extract(v, **settings)
        return replace(solved, l1_lower_bound=0.9 * solved.l1)

    monkeypatch.setattr(sensitivity, "extract", loose)
    with pytest.raises(ValueError, match="step 0, sample s0: the solver stopped at a duality gap"):
        extract_run(OWN, values, SAMPLES, stability=FLOOR, seed=0)


def test_jobs_of_other_choices_are_refused():
    part = pl.DataFrame({"choice": ["a", "b"]})
    assert gather_choices([part], ["b", "a"])["position"].to_list() == [1, 0]
    with pytest.raises(ValueError, match="sensitivity: c: in the jobs or in the config alone"):
        gather_choices([part], ["a", "b", "c"])
    with pytest.raises(ValueError, match="sensitivity: b: in the jobs or in the config alone"):
        gather_choices([part], ["a"])


STABLE = {"rule": "stable", "threshold": 0.05, "stable_share": 0.7}
SELECTION = {"draws": 2, "noise": 0.05, "noise_ratios": [0.02, 0.08], "tie_breaks": ["high_order"]}


@pytest.mark.slow
@pytest.mark.parametrize("noise_ratio", [0.04, 0.1])
def test_a_study_of_stable_interactions_has_them_under_every_choice(values, noise_ratio):
    reference = references_of(values)
    errors = {step: 0.01 * (1 + step) for step in values}
    own = replace(OWN, salience=STABLE, noise_ratio=noise_ratio)
    run = extracted(
        values,
        reference,
        own,
        errors=errors,
        reference_errors={0: 0.02, 7: 0.03},
        selection=SELECTION,
    )
    other = replace(OWN, noise_ratio=noise_ratio)
    rows = vary_findings(run, {"own": own, "other": other}, **TESTED)
    found = rows.filter(choice="own").drop("choice", "boundary_step")

    # The same by the stages of the workflow.
    selector = Selector(SELECTION, STABLE, TESTED["seed"])

    def salient(v, error):
        return select_salient(
            *extract_with_shares(v, SAMPLES, selector, noise_ratio=noise_ratio, error=error),
            **STABLE,
        )

    at_steps = {step: salient(v, errors[step]) for step, v in values.items()}
    in_reference = salient(reference[0], 0.02)
    floor_run = UnchangedRun(
        values[0],
        SAMPLES,
        list(values),
        noise_perturbation(1e-3),
        noise_ratio=noise_ratio,
        draws=2,
        seed=0,
        errors=errors,
        add_shares=selector,
    )
    dynamics, *floor = [
        tables.check(add_generalizability(rows, in_reference, 3), tables.DYNAMICS, "test")
        for rows in (classify(at_steps), *floor_run.classify(STABLE))
    ]
    bootstrap = TESTED["bootstrap"]
    stages = detect_stages(dynamics, {}, SAMPLES, list(values), 3, share=0.9, seed=0, **bootstrap)
    parts = measure_parts(
        dynamics, floor, SAMPLES, list(values), stages, 3, unchanged_samples=6, level=0.95
    )
    expected = conclude(parts.with_columns(run=pl.lit(""))).drop("run")
    assert found.equals(expected.select(found.columns))
    unlike = rows.filter(choice="other").drop("choice", "boundary_step")
    assert not unlike.equals(found)


def test_stable_interactions_need_their_settings_and_one_threshold(values):
    own = replace(OWN, salience=STABLE)
    with pytest.raises(ValueError, match="selection: missing; the salience rule stable needs it"):
        extract_run(own, values, SAMPLES, stability=FLOOR, seed=0)
    run = extract_run(OWN, values, SAMPLES, stability=FLOOR, seed=0)
    twice = {"a": own, "b": replace(own, salience={**STABLE, "threshold": 0.1})}
    with pytest.raises(ValueError, match="the rule stable can be the study's own alone"):
        vary_findings(run, twice, **TESTED)


def test_settings_that_a_rule_leaves_alone_make_no_choice():
    own = replace(OWN, salience={**OWN.salience, "stable_share": 0.8})
    found = choices(
        own, [dict(OWN.salience)], [], [], [], [], has_reference=False, has_readings=False
    )
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
    names = list(
        choices(
            OWN,
            [],
            [],
            NOISE_SCALES,
            [*TIE_BREAKS],
            kinds,
            has_reference=True,
            has_readings=True,
        )
    )
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
