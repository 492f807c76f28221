"""The findings and the three classes under other choices than the study's own."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import polars as pl
from numpy.typing import NDArray

from sft_interactions import tables
from sft_interactions.analysis.choices import CERTAIN, JOINT, SINGLE, Choice
from sft_interactions.analysis.dynamics import KEY, REMOVED, add_generalizability, classify
from sft_interactions.analysis.findings import conclude, measure_parts
from sft_interactions.analysis.metrics import compute_metrics
from sft_interactions.analysis.readings import L1_TOLERANCE
from sft_interactions.analysis.salience import RULES, Salience, select_salient
from sft_interactions.analysis.selection import Selection, Selector
from sft_interactions.analysis.stability import (
    ChurnFloor,
    Progress,
    Tables,
    UnchangedRun,
    noise_perturbation,
)
from sft_interactions.analysis.stages import Bootstrap, detect_stages
from sft_interactions.extraction.interactions import check_certificates, from_extraction
from sft_interactions.extraction.joint import extract_joint
from sft_interactions.extraction.program import Extraction, extract
from sft_interactions.extraction.transforms import n_players
from sft_interactions.parallel import Mapped, in_turn

SHOWN = ["count", "mean_order", "gamma", "rho"]

# The ``interactions`` table of a checkpoint and its ``solve`` table.
Checkpoint = tuple[pl.DataFrame | pl.LazyFrame, pl.DataFrame]


def vary_salience(
    checkpoints: Mapping[int, Checkpoint],
    reference: Checkpoint | None,
    choices: Sequence[Salience],
    n_players: int,
) -> pl.DataFrame:
    """Metrics of every class and checkpoint under several salience rules.

    A threshold relative to the sample's largest effect can change counts by itself when that effect
    changes, so findings should not hang on one rule.

    Args:
        checkpoints: step to the rows of its ``interactions`` and ``solve`` tables.
        reference: the same two tables of the reference model, or None.
        choices: ``rule`` and ``threshold`` of each variant.
        n_players: number of players of a prompt.

    Returns:
        Rows (rule, threshold, step, class, count, mean_order, gamma, rho), means as in ``metrics``.
    """
    samples = sorted(checkpoints[min(checkpoints)][1]["sample_id"])
    parts = []
    for choice in choices:
        classes = classify(
            {step: select_salient(*pair, **choice) for step, pair in checkpoints.items()}
        )
        salient_in_reference = None if reference is None else select_salient(*reference, **choice)
        metrics = compute_metrics(
            add_generalizability(classes, salient_in_reference, n_players),
            samples,
            sorted(checkpoints),
            n_players,
            level=0.95,
        )
        chosen = metrics.filter(
            pl.col("metric").is_in(SHOWN), pl.col("order").is_null(), pl.col("kind") == "both"
        )
        parts.append(
            chosen.pivot("metric", index=["step", "class"], values="value").select(
                pl.lit(choice["rule"]).alias("rule"),
                pl.lit(float(choice["threshold"])).alias("threshold"),
                "step",
                "class",
                *SHOWN,
            )
        )
    return pl.concat(parts)


@dataclass(frozen=True)
class ExtractedRun:
    """What a run is under one mask embedding, noise bound and tie-break, before any salience rule.

    Attributes:
        samples: (B,) sample ids, in sorted order.
        n_players: number of players of a prompt.
        checkpoints: step to its tables, of one reading; may be empty where others are asked for.
        references: ``reference_model`` to its tables; empty without one.
        unchanged: the run in which nothing but noise changes, of the same steps.
        reading: the reading of ``checkpoints`` and ``references``.
        readings: other reading that is asked for to rows as of
            :func:`~sft_interactions.analysis.dynamics.classify`, under the study's own salience.
        reference_readings: the same of the reference model, to its salient interactions.
    """

    samples: Sequence[str]
    n_players: int
    checkpoints: Mapping[int, Checkpoint]
    references: Mapping[str, Checkpoint]
    unchanged: UnchangedRun
    reading: str = SINGLE
    readings: Mapping[str, pl.DataFrame] = field(default_factory=dict)
    reference_readings: Mapping[str, pl.DataFrame] = field(default_factory=dict)


def extract_run(
    choice: Choice,
    values: Mapping[int, NDArray[np.float64]],
    samples: Sequence[str],
    *,
    stability: ChurnFloor,
    seed: int,
    gap_tolerance: float = 1e-6,
    tolerance: float = L1_TOLERANCE,
    errors: Mapping[int, float] | None = None,
    selection: Selection | None = None,
    progress: Progress = lambda _: None,
    mapped: Mapped = in_turn,
) -> ExtractedRun:
    """Extract a run and its churn floor, as a choice has it; the reference model is another run's.

    Args:
        choice: see :func:`extract_checkpoints`.
        values: see :func:`extract_checkpoints`.
        samples: (B,) sample ids, in sorted order.
        stability: ``samples``, ``churn_noise`` and ``draws`` of the churn floor.
        seed: seed of the noise.
        gap_tolerance: see :func:`extract_checkpoints`.
        tolerance: see :func:`extract_checkpoints`.
        errors: see :func:`extract_checkpoints`.
        selection: see :func:`extract_checkpoints`.
        progress: called with the number of extractions that have just been made, of
            :func:`count_extractions`; the perturbed ones are not counted.
        mapped: shares the work out, see :class:`~sft_interactions.parallel.Mapped`.

    Raises:
        ValueError: see :func:`extract_checkpoints`.
    """
    checkpoints = extract_checkpoints(
        choice,
        values,
        samples,
        seed=seed,
        gap_tolerance=gap_tolerance,
        tolerance=tolerance,
        errors=errors,
        selection=selection,
        progress=progress,
        mapped=mapped,
    )
    first = values[min(values)]
    unchanged = UnchangedRun(
        first,
        samples,
        sorted(values),
        noise_perturbation(stability["churn_noise"], choice.tie_break),
        noise_ratio=choice.noise_ratio,
        noise_scale=choice.noise_scale,
        n_samples=stability["samples"],
        draws=stability["draws"],
        seed=seed,
        errors=errors,
        add_shares=_selector(choice, selection, seed, mapped),
        progress=progress,
        mapped=mapped,
    )
    return ExtractedRun(
        samples, n_players(first.shape[1]), checkpoints, {}, unchanged, choice.reading
    )


def extract_checkpoints(
    choice: Choice,
    values: Mapping[int, NDArray[np.float64]],
    samples: Sequence[str],
    *,
    seed: int,
    gap_tolerance: float = 1e-6,
    tolerance: float = L1_TOLERANCE,
    errors: Mapping[int, float] | None = None,
    selection: Selection | None = None,
    progress: Progress = lambda _: None,
    mapped: Mapped = in_turn,
) -> dict[int, Checkpoint]:
    """Extract the checkpoints of a run, as a choice has it.

    Args:
        choice: gives the noise bound, the tie-break, the reading, and whether salience needs shares.
        values: step to v, (B, 2^n), in log-odds, under the mask embedding of the choice.
        samples: (B,) sample ids, in sorted order.
        seed: seed of the perturbed extractions.
        gap_tolerance: largest duality gap.
        tolerance: see :class:`~sft_interactions.analysis.readings.RunReader`.
        errors: step to the measured error of its log-odds, see
            :class:`~sft_interactions.analysis.stability.UnchangedRun`; none by default.
        selection: perturbed extractions, for a choice with the salience rule ``stable``.
        progress: called with the number of extractions that have just been made, one a sample and
            checkpoint; the perturbed ones are not counted.
        mapped: shares the work out, see :class:`~sft_interactions.parallel.Mapped`.

    Returns:
        Step to its tables, of the reading of the choice.

    Raises:
        ValueError: the choice has the salience rule ``stable`` and there is no ``selection``, or an
            extraction is not certified, or the reading is ``certain``.
    """
    selector = _selector(choice, selection, seed, mapped)
    if choice.reading == CERTAIN:
        raise ValueError("reading: certain is no choice among the optima; give its classes instead")
    solved = {
        step: extract(
            v,
            noise_ratio=choice.noise_ratio,
            noise_scale=choice.noise_scale,
            tie_break=choice.tie_break,
            gap_tolerance=gap_tolerance,
            progress=progress,
            mapped=mapped,
        )
        for step, v in values.items()
    }
    found = {step: from_extraction(list(samples), v, solved[step]) for step, v in values.items()}
    for step, (_, solve) in found.items():
        check_certificates(solve, gap_tolerance, f"step {step}")
    if choice.reading == JOINT:
        found = _read_together(values, solved, found, samples, choice.tie_break, tolerance, mapped)
    if selector is None:
        return dict(found)
    return {
        step: (
            selector(
                interactions,
                values[step],
                samples,
                error=0.0 if errors is None else errors[step],
            ),
            solve,
        )
        for step, (interactions, solve) in found.items()
    }


def _read_together(
    values: Mapping[int, NDArray[np.float64]],
    solved: Mapping[int, Extraction],
    found: Mapping[int, Tables],
    samples: Sequence[str],
    tie_break: str,
    tolerance: float,
    mapped: Mapped,
) -> dict[int, Tables]:
    """Tables of the joint reading; their ``solve`` stays that of each checkpoint by itself."""
    steps = sorted(values)
    joint = extract_joint(
        [values[step] for step in steps],
        [solved[step] for step in steps],
        tie_break=tie_break,
        tolerance=tolerance,
        mapped=mapped,
    )
    return {
        step: (from_extraction(list(samples), values[step], one)[0], found[step][1])
        for step, one in zip(steps, joint.checkpoints, strict=True)
    }


def _selector(
    choice: Choice, selection: Selection | None, seed: int, mapped: Mapped
) -> Selector | None:
    """What adds shares, if the salience of a choice needs them."""
    if RULES[choice.salience["rule"]].starts_from is None:
        return None
    if selection is None:
        raise ValueError("selection: missing; the salience rule stable needs it")
    return Selector(selection, choice.salience, seed, choice.noise_scale, mapped)


def count_extractions(n_samples: int, n_checkpoints: int, stability: ChurnFloor) -> int:
    """How many extractions :func:`extract_run` makes."""
    drawn = 1 + stability["draws"] * (n_checkpoints - 1)
    return n_samples * n_checkpoints + min(n_samples, stability["samples"]) * drawn


def vary_findings(
    run: ExtractedRun,
    tested: Mapping[str, Choice],
    *,
    bootstrap: Bootstrap,
    removed_share: float,
    seed: int,
    tolerance: float = L1_TOLERANCE,
    progress: Progress = lambda _: None,
) -> pl.DataFrame:
    """Test the findings under choices of one extraction: classes, stages and churn floor anew.

    Args:
        run: as the choices extract it.
        tested: name to choice, one job of :func:`~sft_interactions.analysis.choices.share_out`.
        bootstrap: ``resamples`` and ``level``.
        removed_share: see :func:`~sft_interactions.analysis.stages.detect_stages`.
        seed: seed of the bootstrap.
        tolerance: see :class:`~sft_interactions.analysis.readings.RunReader`.
        progress: called with 1 after each choice.

    Returns:
        Rows of the ``findings`` table without ``run``, with ``choice`` and the ``boundary_step`` under it.

    Raises:
        ValueError: the choices are of more than one extraction, two have the salience rule ``stable`` with
            other thresholds, or one needs a reading or reference model that ``run`` lacks.
    """
    _check_one_extraction(tested)
    parts = []
    for name, choice in tested.items():
        rows, unchanged = classify_run(run, choice, tolerance)
        found = findings_of_classes(
            rows,
            unchanged,
            _salient_in_reference(run, choice),
            run.samples,
            run.n_players,
            steps=[run.unchanged.first, *run.unchanged.later],
            unchanged_samples=run.unchanged.n_samples,
            gamma=choice.gamma,
            bootstrap=bootstrap,
            removed_share=removed_share,
            seed=seed,
        )
        parts.append(found.select(pl.lit(name).alias("choice"), pl.all()))
        progress(1)
    return pl.concat(parts)


def gather_choices(parts: Sequence[pl.DataFrame], names: Sequence[str]) -> pl.DataFrame:
    """The rows of all jobs, with the ``position`` of each choice.

    Args:
        parts: what :func:`vary_findings` gives for each job.
        names: all choices, in their order.

    Raises:
        ValueError: the jobs have other choices than these.
    """
    rows = pl.concat(parts)
    found = set(rows["choice"])
    if found != set(names):
        other = ", ".join(sorted(found.symmetric_difference(names)))
        raise ValueError(f"sensitivity: {other}: in the jobs or in the config alone; rebuild them")
    places = {name: position for position, name in enumerate(names)}
    position = pl.col("choice").replace_strict(places, return_dtype=pl.UInt16)
    return rows.with_columns(position.alias("position"))


def _check_one_extraction(tested: Mapping[str, Choice]) -> None:
    """Raise ValueError for choices that one :class:`ExtractedRun` cannot serve."""
    extractions = {
        (one.mask_embedding, one.noise_ratio, one.noise_scale, one.tie_break)
        for one in tested.values()
    }
    if len(extractions) != 1:
        raise ValueError(
            f"{len(extractions)} extractions in one job; share the choices out with share_out"
        )
    stable: list[Salience] = []
    for choice in tested.values():
        if RULES[choice.salience["rule"]].starts_from is not None and choice.salience not in stable:
            stable.append(choice.salience)
    if len(stable) > 1:
        raise ValueError(
            f"salience: {stable} are varied; the rule stable can be the study's own alone"
        )


def findings_of_classes(
    rows: pl.DataFrame,
    unchanged: Sequence[pl.DataFrame],
    reference: pl.DataFrame | None,
    samples: Sequence[str],
    n_players: int,
    *,
    steps: Sequence[int],
    unchanged_samples: int,
    gamma: str = "gamma",
    bootstrap: Bootstrap,
    removed_share: float,
    seed: int,
) -> pl.DataFrame:
    """Test the findings on classes of a run and of the draws of its churn floor.

    Args:
        rows: as of :func:`~sft_interactions.analysis.dynamics.classify`.
        unchanged: the same of each draw.
        reference: salient interactions of the reference model, or None.
        samples: (B,) sample ids, in sorted order.
        n_players: number of players of a prompt.
        steps: analysed checkpoints, ascending.
        unchanged_samples: how many samples, the first of ``samples``, the draws cover.
        gamma: see :class:`~sft_interactions.analysis.choices.Choice`.
        bootstrap: ``resamples`` and ``level``.
        removed_share: see :func:`~sft_interactions.analysis.stages.detect_stages`.
        seed: seed of the bootstrap.

    Returns:
        Rows of the ``findings`` table without ``run``, with the ``boundary_step``.
    """
    # In the order of the tables, on which sums depend in their last digits.
    dynamics, *floor = [
        tables.check(
            add_generalizability(classes, reference, n_players), tables.DYNAMICS, "dynamics"
        )
        for classes in (rows, *unchanged)
    ]
    stages = detect_stages(
        dynamics, {}, samples, steps, n_players, share=removed_share, seed=seed, **bootstrap
    )
    parts = measure_parts(
        dynamics,
        floor,
        samples,
        steps,
        stages,
        n_players,
        unchanged_samples=unchanged_samples,
        level=bootstrap["level"],
        gamma=gamma,
    )
    return conclude(parts.with_columns(run=pl.lit(""))).select(
        pl.lit(stages["boundary_step"], pl.Int64).alias("boundary_step"), pl.exclude("run")
    )


def classify_run(
    run: ExtractedRun, choice: Choice, tolerance: float = L1_TOLERANCE
) -> tuple[pl.DataFrame, list[pl.DataFrame]]:
    """Classes of the salient interactions of a run, and of each draw of its churn floor.

    Args:
        run: as the choice extracts it.
        choice: gives salience, reading and the effect of what is removed.
        tolerance: see :class:`~sft_interactions.analysis.readings.RunReader`.

    Returns:
        Rows as of :func:`~sft_interactions.analysis.dynamics.classify`, once and for each draw.

    Raises:
        ValueError: the choice needs a reading that ``run`` lacks.
    """
    return _classes(choice, run), run.unchanged.classify(choice.salience, choice.reading, tolerance)


def _salient_in_reference(run: ExtractedRun, choice: Choice) -> pl.DataFrame | None:
    if choice.reading in run.readings:
        if run.references and choice.reading not in run.reference_readings:
            raise ValueError(
                f"reference_readings: {choice.reading} is missing; give its interactions"
            )
        return run.reference_readings.get(choice.reading)
    if not run.references:
        return None
    if choice.reference_model not in run.references:
        raise ValueError(f"references: {choice.reference_model} is missing; give its tables")
    return select_salient(*run.references[choice.reference_model], **choice.salience)


def _classes(choice: Choice, run: ExtractedRun) -> pl.DataFrame:
    """Classes of the salient interactions, as of :func:`~sft_interactions.analysis.dynamics.classify`."""
    if choice.reading != run.reading or not run.checkpoints:
        if choice.reading not in run.readings:
            raise ValueError(f"readings: {choice.reading} is missing; give its classes")
        return run.readings[choice.reading]
    if sorted(run.checkpoints) != [run.unchanged.first, *run.unchanged.later]:
        raise ValueError("checkpoints: not those of the churn floor; give the tables of each")
    salient = {
        step: select_salient(*pair, **choice.salience) for step, pair in run.checkpoints.items()
    }
    classes = classify(salient)
    if choice.removed_effect == "last_present":
        return last_present_effects(classes, salient, sorted(salient))
    return classes


def last_present_effects(
    rows: pl.DataFrame, salient: Mapping[int, pl.DataFrame], steps: Sequence[int]
) -> pl.DataFrame:
    """Give removed interactions the effect that they had when they were last salient.

    Args:
        rows: what :func:`~sft_interactions.analysis.dynamics.classify` returns.
        salient: step to rows (sample_id, kind, pattern, effect), for each of ``steps``.
        steps: analysed checkpoints.
    """
    present = pl.concat(
        [
            salient[step].select(*KEY, pl.lit(step, pl.Int64).alias("step"), last="effect")
            for step in steps
        ]
    ).sort("step")
    found = (
        rows.with_row_index("row")
        .sort("step")
        .join_asof(present, on="step", by=KEY, strategy="backward", check_sortedness=False)
        .sort("row")
    )
    effect = pl.when(pl.col("class") == REMOVED).then("last").otherwise("effect")
    return found.with_columns(effect.alias("effect")).drop("row", "last")
