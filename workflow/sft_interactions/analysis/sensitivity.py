"""The findings and the three classes under other choices than the study's own."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from sft_interactions import tables
from sft_interactions.analysis.dynamics import KEY, REMOVED, add_generalizability, classify
from sft_interactions.analysis.findings import conclude, measure_parts
from sft_interactions.analysis.metrics import Bootstrap, compute_metrics
from sft_interactions.analysis.readings import CANONICAL, L1_TOLERANCE, READINGS, read_run
from sft_interactions.analysis.salience import RULES, Salience, select_salient
from sft_interactions.analysis.selection import Selection, Selector
from sft_interactions.analysis.stability import (
    ChurnFloor,
    Progress,
    UnchangedRun,
    noise_perturbation,
)
from sft_interactions.analysis.stages import detect_stages
from sft_interactions.extraction.interactions import from_extraction, to_extraction
from sft_interactions.extraction.program import extract

SHOWN = ["count", "mean_order", "gamma", "rho"]
# The two models that a reference run has to offer; figures and tables show these names.
BEFORE_SFT, TUNED = "before SFT", "tuned"

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
            resamples=0,
            level=0.95,
            seed=0,
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
class Choice:
    """One way to analyse a run; the defaults are the paper's or, where it leaves a choice open, ours.

    Attributes:
        salience: rule and threshold.
        noise_ratio: ζ of the extraction.
        noise_scale: what ζ is a share of, see
            :func:`~sft_interactions.extraction.program.noise_bounds`; the churn floor's noise is too.
        tie_break: tie-break of the extraction.
        gamma: metric that is taken for γ: ``gamma`` (by strength) or ``gamma_by_count``.
        removed_effect: effect of a removed interaction: ``first``, the one before SFT, or
            ``last_present``, the one at the last checkpoint before t at which it was salient.
        reference_model: ``before SFT``, or ``tuned``, at its last checkpoint.
        mask_embedding: embedding of a masked word, see
            :func:`~sft_interactions.masking.mask_embedding.make_mask_embedding`.
        reading: one of :data:`~sft_interactions.analysis.readings.READINGS`.
    """

    salience: Salience
    noise_ratio: float
    noise_scale: str = "sample"
    tie_break: str = "canonical"
    gamma: str = "gamma"
    removed_effect: str = "first"
    reference_model: str = BEFORE_SFT
    mask_embedding: str = "token"
    reading: str = CANONICAL


def choices(
    own: Choice,
    salience: Sequence[Salience],
    noise_ratios: Sequence[float],
    noise_scales: Sequence[str],
    tie_breaks: Sequence[str],
    mask_embeddings: Sequence[str],
    has_reference: bool,
) -> dict[str, Choice]:
    """The study's own choice and, one at a time, the others, by name.

    Args:
        own: the study's own choice.
        salience: rules and thresholds.
        noise_ratios: ζ of the extraction.
        noise_scales: noise scales of the extraction.
        tie_breaks: tie-breaks of the extraction.
        mask_embeddings: embeddings of a masked word.
        has_reference: there is a reference model, so the choices about γ apply.
    """
    found = {"the study's own": own}
    for rule in salience:
        if (rule["rule"], rule["threshold"]) != (own.salience["rule"], own.salience["threshold"]):
            name = f"salience: {rule['rule']} {rule['threshold']:g}"
            found[name] = replace(own, salience=rule)
    for ratio in noise_ratios:
        if ratio != own.noise_ratio:
            found[f"noise bound ζ: {ratio:g}"] = replace(own, noise_ratio=ratio)
    for scale in noise_scales:
        if scale != own.noise_scale:
            found[f"noise scale: {scale}"] = replace(own, noise_scale=scale)
    for name in tie_breaks:
        if name != own.tie_break:
            found[f"tie-break: {name}"] = replace(own, tie_break=name)
    if RULES[own.salience["rule"]].starts_from is None:
        # Those of the rule stable are already a choice of what the data determine.
        for reading in READINGS:
            if reading != own.reading:
                found[f"reading: {reading}"] = replace(own, reading=reading)
    for mask_embedding in mask_embeddings:
        if mask_embedding != own.mask_embedding:
            found[f"mask embedding: {mask_embedding}"] = replace(own, mask_embedding=mask_embedding)
    found["removed effect: last present"] = replace(own, removed_effect="last_present")
    if has_reference:
        found["γ: by count"] = replace(own, gamma="gamma_by_count")
        other = TUNED if own.reference_model == BEFORE_SFT else BEFORE_SFT
        found[f"reference model: {other}"] = replace(own, reference_model=other)
    return found


@dataclass(frozen=True)
class _Solved:
    """Everything that is extracted under one mask embedding, noise ratio and scale, and tie-break.

    Attributes:
        checkpoints: step to its tables.
        references: ``reference_model`` to its tables; empty without one.
        unchanged: the run in which nothing but noise changes.
    """

    checkpoints: Mapping[int, Checkpoint]
    references: Mapping[str, Checkpoint]
    unchanged: UnchangedRun


def vary_findings(
    values: Mapping[str, Mapping[int, NDArray[np.float64]]],
    references: Mapping[str, Mapping[str, NDArray[np.float64]]],
    samples: Sequence[str],
    tested: Mapping[str, Choice],
    *,
    stability: ChurnFloor,
    bootstrap: Bootstrap,
    removed_share: float,
    seed: int,
    errors: Mapping[str, Mapping[int, float]] | None = None,
    reference_errors: Mapping[str, Mapping[str, float]] | None = None,
    selection: Selection | None = None,
    tolerance: float = L1_TOLERANCE,
    progress: Progress = lambda _: None,
) -> pl.DataFrame:
    """Test the findings under every choice: extraction, classes, stages and churn floor anew.

    Args:
        values: mask embedding to step to v, (B, 2^n), in log-odds; one for every choice of it.
        references: v of the reference model, by mask embedding and ``reference_model``; empty without one.
        samples: (B,) sample ids, in sorted order.
        tested: name to choice, see :func:`choices`.
        stability: ``samples``, ``churn_noise`` and ``draws`` of the churn floor.
        bootstrap: ``resamples`` and ``level``.
        removed_share: see :func:`~sft_interactions.analysis.stages.detect_stages`.
        seed: seed of the noise and of the bootstrap.
        errors: mask embedding to step to the measured error of its log-odds, see
            :class:`~sft_interactions.analysis.stability.UnchangedRun`; none by default.
        reference_errors: the same of the reference model, by mask embedding and ``reference_model``.
        selection: perturbed extractions, made anew under every choice if one has the salience rule
            ``stable``, of which there may be one with its thresholds: the study's own.
        tolerance: see :func:`~sft_interactions.analysis.readings.read_run`.
        progress: called with 1 after each choice.

    Returns:
        Rows of the ``findings`` table without ``run``, with ``choice``, its ``position`` in ``tested``
        and the ``boundary_step`` under it.

    Raises:
        ValueError: a choice has the salience rule ``stable`` and there is no ``selection``, or two choices
            have it with other thresholds.
    """
    stable = _stable_salience(tested.values(), selection)
    extracted: dict[tuple[str, float, str, str], _Solved] = {}
    parts = []
    for position, (name, choice) in enumerate(tested.items()):
        key = (choice.mask_embedding, choice.noise_ratio, choice.noise_scale, choice.tie_break)
        if key not in extracted:
            extracted[key] = _solve(
                choice,
                values[choice.mask_embedding],
                references.get(choice.mask_embedding, {}),
                samples,
                stability=stability,
                seed=seed,
                errors=None if errors is None else errors[choice.mask_embedding],
                reference_errors=None
                if reference_errors is None
                else reference_errors[choice.mask_embedding],
                selector=None
                if stable is None or selection is None
                else Selector(selection, stable, seed, choice.noise_scale),
            )
        found = _test_findings(
            choice,
            extracted[key],
            values[choice.mask_embedding],
            samples,
            tolerance=tolerance,
            bootstrap=bootstrap,
            removed_share=removed_share,
            seed=seed,
        )
        parts.append(
            found.with_columns(
                pl.lit(position).alias("position"), pl.lit(name).alias("choice")
            ).select("position", "choice", pl.exclude("position", "choice"))
        )
        progress(1)
    return pl.concat(parts)


def _stable_salience(tested: Iterable[Choice], selection: Selection | None) -> Salience | None:
    """The salience of the choices that needs shares, if there is one."""
    found: list[Salience] = []
    for choice in tested:
        if RULES[choice.salience["rule"]].starts_from is not None and choice.salience not in found:
            found.append(choice.salience)
    if len(found) > 1:
        raise ValueError(
            f"salience: {found} are varied; the rule stable can be the study's own alone"
        )
    if found and selection is None:
        raise ValueError("selection: missing; the salience rule stable needs it")
    return found[0] if found else None


def _solve(
    choice: Choice,
    values: Mapping[int, NDArray[np.float64]],
    references: Mapping[str, NDArray[np.float64]],
    samples: Sequence[str],
    *,
    stability: ChurnFloor,
    seed: int,
    errors: Mapping[int, float] | None,
    reference_errors: Mapping[str, float] | None,
    selector: Selector | None,
) -> _Solved:
    """Extract a run, its reference model and its churn floor, under one mask embedding."""

    def tables_of(v: NDArray[np.float64], error: float) -> Checkpoint:
        solved = extract(
            v,
            noise_ratio=choice.noise_ratio,
            noise_scale=choice.noise_scale,
            tie_break=choice.tie_break,
        )
        interactions, solve = from_extraction(list(samples), v, solved)
        if selector is not None:
            interactions = selector(interactions, v, samples, error=error)
        return interactions, solve

    def error_of(measured: Mapping[Any, float] | None, key: object) -> float:
        return 0.0 if measured is None else measured[key]

    noise = noise_perturbation(stability["churn_noise"])
    return _Solved(
        {step: tables_of(v, error_of(errors, step)) for step, v in values.items()},
        {name: tables_of(v, error_of(reference_errors, name)) for name, v in references.items()},
        UnchangedRun(
            values[min(values)],
            samples,
            sorted(values),
            replace(noise, tie_break=choice.tie_break),
            noise_ratio=choice.noise_ratio,
            noise_scale=choice.noise_scale,
            n_samples=stability["samples"],
            draws=stability["draws"],
            seed=seed,
            errors=errors,
            add_shares=selector,
        ),
    )


def _test_findings(
    choice: Choice,
    solved: _Solved,
    values: Mapping[int, NDArray[np.float64]],
    samples: Sequence[str],
    *,
    tolerance: float,
    bootstrap: Bootstrap,
    removed_share: float,
    seed: int,
) -> pl.DataFrame:
    """Rows of the ``findings`` table without ``run``, with ``boundary_step``."""
    steps = sorted(solved.checkpoints)
    n_players = int(solved.checkpoints[steps[0]][1]["n_players"][0])
    if choice.reading == CANONICAL:
        salient = {
            step: select_salient(*solved.checkpoints[step], **choice.salience) for step in steps
        }
    else:
        solutions = {
            step: to_extraction(samples, interactions.lazy().collect(), solve)
            for step, (interactions, solve) in solved.checkpoints.items()
        }
        salient = read_run(
            choice.reading, values, solutions, samples, choice.salience, tolerance=tolerance
        )
    in_reference = None
    if choice.reference_model in solved.references:
        reference = solved.references[choice.reference_model]
        in_reference = select_salient(*reference, **choice.salience)
    classes = classify(salient)
    if choice.removed_effect == "last_present":
        classes = last_present_effects(classes, salient, steps)
    # In the order of the tables, on which sums depend in their last digits.
    dynamics, *floor = [
        tables.check(
            add_generalizability(rows, in_reference, n_players), tables.DYNAMICS, "dynamics"
        )
        for rows in (
            classes,
            *solved.unchanged.classify(choice.salience, choice.reading, tolerance),
        )
    ]
    stages = detect_stages(
        dynamics, None, samples, steps, n_players, share=removed_share, seed=seed, **bootstrap
    )
    rows = measure_parts(
        dynamics,
        floor,
        samples,
        steps,
        stages,
        n_players,
        unchanged_samples=solved.unchanged.n_samples,
        seed=seed,
        gamma=choice.gamma,
        **bootstrap,
    )
    return conclude(rows.with_columns(run=pl.lit(""))).select(
        pl.lit(stages["boundary_step"], pl.Int64).alias("boundary_step"), pl.exclude("run")
    )


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
