"""Does it help to choose a checkpoint by interactions? The arms of docs/stopping.md, and their regret.

    python benchmarks/stopping.py                    the runs under results/reference/stopping
    python benchmarks/stopping.py --runs FOLDER      runs somewhere else, such as results/stopping/runs
    python benchmarks/stopping.py --reading joint    the findings alone, by the joint reading; 40 s a run
    python benchmarks/stopping.py --reading default  the same, with noise bound and tie-break by default too
    python benchmarks/stopping.py --cores 8          samples are shared out; the tables are the same
    python benchmarks/stopping.py --kept FOLDER      what is extracted is kept for the next time

A finished run has losses.parquet, training.parquet and log_odds/step-*.parquet of all its checkpoints.
Interactions are extracted here, under the settings of config/stopping.yaml. The tables go to --output;
those of another reading to a folder of its name there.
"""

import argparse
import hashlib
import inspect
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from scipy import stats

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "workflow"))

from sft_interactions import config_file, report_table, tables  # noqa: E402
from sft_interactions.analysis import agreement  # noqa: E402
from sft_interactions.analysis.choices import JOINT, SINGLE  # noqa: E402
from sft_interactions.analysis.dynamics import add_generalizability, classify  # noqa: E402
from sft_interactions.analysis.findings import conclude  # noqa: E402
from sft_interactions.analysis.protocol import (  # noqa: E402
    FEWEST_SEEDS,
    Tested,
    examine,
    tabulate_over_seeds,
)
from sft_interactions.analysis.readings import RunReader  # noqa: E402
from sft_interactions.analysis.salience import select_by_first, select_salient  # noqa: E402
from sft_interactions.analysis.stages import detect_stages  # noqa: E402
from sft_interactions.analysis.turnover import omega  # noqa: E402
from sft_interactions.analysis.turnover import tabulate as turnovers  # noqa: E402
from sft_interactions.config import resolve  # noqa: E402
from sft_interactions.extraction import extract  # noqa: E402
from sft_interactions.extraction.interactions import to_values  # noqa: E402
from sft_interactions.files import (  # noqa: E402
    CHECKSUMS,
    check_checksums,
    content_digest,
    digest_of_modules,
    write_checksums,
)
from sft_interactions.parallel import Mapped, Workers, in_turn  # noqa: E402

RELEASED, MENDED, ONLINE = (f"interactions, {way}" for way in ("as released", "mended", "online"))
SAME_PROMPTS, VALIDATION = "loss, same prompts", "loss, validation"
FIXED, TRAINING, LAST_BUT_ONE, LAST = "fixed", "training loss", "last but one", "last"
RANDOM, ORACLE = "random", "oracle"
ARMS = (
    RELEASED,
    MENDED,
    ONLINE,
    SAME_PROMPTS,
    VALIDATION,
    FIXED,
    TRAINING,
    LAST_BUT_ONE,
    LAST,
    RANDOM,
    ORACLE,
)
PRIMARY = MENDED, SAME_PROMPTS
DEFAULT = "default"  # the blocks extraction and optima of a study that has none
NON_INFERIOR = 0.03  # nats
PLATEAU = 0.05  # the training loss has to fall by this share
# What decides, beside log-odds and settings, on interactions that are kept.
MODULES = [
    f"{part}.{path.stem}"
    for part in ("analysis", "extraction")
    for path in (ROOT / "workflow" / "sft_interactions" / part).glob("*.py")
]
LIBRARIES = ("highspy", "numpy", "polars", "scipy")
LEAST_CHECKPOINTS = 3  # of a course that is judged as it arrives
MANY_RUNS = 36  # the primary question is open until there are so many
# Table to what its legend says of intervals, where they are not over prompts.
INTERVALS = {
    "differences": "Interval: 95 %, for other seeds of the same cells: the variance over seeds within "
    "cells, pooled, and Student's t. Degrees: those of freedom.",
    "noise": "Interval: 95 %, Student's t over the cells, each the mean of its seeds.",
    "seed-verdicts": report_table.OVER_SEEDS,
}


@dataclass(frozen=True)
class Run:
    """What is known of a run beside its interactions.

    Attributes:
        losses: split to the mean loss per response token at every checkpoint, in nats.
        train_loss: step to the loss of that step's batch.
    """

    name: str
    task: str
    rate: float
    noise: float
    seed: int
    steps: Sequence[int]
    losses: Mapping[str, Sequence[float]]
    train_loss: Mapping[int, float]


def read_run(folder: Path, name: str, settings: Mapping[str, Any], noise: float) -> Run:
    """Read the losses of a finished run.

    Args:
        settings: entry of the config's ``runs``.
        noise: share of its training labels that are those of other samples.

    Raises:
        ValueError: a checkpoint has no loss.
    """
    losses = tables.read(folder / "losses.parquet", tables.LOSSES)
    means = (
        losses.group_by("split", "step")
        .agg(loss=pl.col("loss").sum() / pl.col("n_tokens").sum())
        .sort("split", "step")
    )
    by_split = {
        split: dict(rows.select("step", "loss").iter_rows())
        for (split,), rows in means.group_by("split")
    }
    steps = settings["steps"]
    for split, course in by_split.items():
        if list(course) != steps:
            raise ValueError(
                f"{folder}/losses.parquet: {split} has the checkpoints {list(course)}, not {steps}; "
                "make the table anew"
            )
    training = tables.read(folder / "training.parquet", tables.TRAINING)
    return Run(
        name,
        settings["dataset"].removesuffix("-noise"),
        settings["finetune"]["learning_rate"],
        noise,
        settings["seed"],
        steps,
        {split: [course[step] for step in steps] for split, course in by_split.items()},
        dict(training.filter(pl.col("step") > 0).select("step", "train_loss").iter_rows()),
    )


@dataclass(frozen=True)
class Judged:
    """What the interactions of a run say.

    Attributes:
        samples: those analysed.
        dynamics: rows of its ``dynamics`` table.
        choices: arm to checkpoint.
        tested: the run by the protocol.
        by_first: the same, with the threshold of salience that each prompt has at the first checkpoint.
        quantities: see :func:`describe`.
    """

    samples: Sequence[str]
    dynamics: pl.DataFrame
    choices: Mapping[str, int]
    tested: Tested
    by_first: Tested
    quantities: Mapping[str, float]


def describe(
    dynamics: pl.DataFrame, samples: Sequence[str], steps: Sequence[int], level: float
) -> dict[str, float]:
    """What clean and noisy runs are compared by, means a sample."""
    turnover = turnovers(dynamics, samples, steps, level)
    later = turnover.tail(len(turnover) // 2)
    last = omega(dynamics, steps[-1])
    return {
        "salient before SFT": float(turnover["salient"][0]),
        "salient at the end": len(last) / len(samples),
        "mean order at the end": float(np.mean(last["order"].to_numpy())),
        "loss rate of the first interval": float(turnover["loss_rate"][0]),
        "loss rate of the later half": float(later["lost"].sum() / later["salient"].sum()),
        "new of an interval, later half": float(np.mean(later["new"].to_numpy())),
    }


def read_interactions(
    folder: Path, steps: Sequence[int], config: Mapping[str, Any], mapped: Mapped = in_turn
) -> tuple[list[str], dict[int, tuple[pl.DataFrame, pl.DataFrame]]]:
    """Samples of a run, and step to rows of its ``interactions`` and ``solve`` tables."""
    chosen, optima = config["extraction"], config["optima"]
    values, solved, samples = {}, {}, []
    for step in steps:
        path = folder / "log_odds" / f"step-{step}.parquet"
        samples, values[step] = to_values(tables.read(path, tables.LOG_ODDS), str(path))
        solved[step] = extract(
            values[step],
            noise_ratio=chosen["noise_ratio"],
            noise_scale=chosen["noise_scale"],
            tie_break=chosen["tie_break"],
            gap_tolerance=chosen["gap_tolerance"],
            mapped=mapped,
        )
    tolerance = optima["l1_tolerance"]
    reader = RunReader(values, solved, samples, chosen["tie_break"], tolerance, mapped)
    return samples, reader.tables(optima["reading"])


def keep_interactions(
    kept: Path,
    folder: Path,
    steps: Sequence[int],
    config: Mapping[str, Any],
    mapped: Mapped = in_turn,
) -> tuple[list[str], dict[int, tuple[pl.DataFrame, pl.DataFrame]]]:
    """What :func:`read_interactions` gives; what is kept of the same log-odds, settings and code is read.

    Args:
        kept: folder that belongs to one machine, since others round otherwise.

    Raises:
        ValueError: a table there is damaged.
    """
    sources = [folder / "log_odds" / f"step-{step}.parquet" for step in steps]
    about = [
        {name: config[name] for name in ("extraction", "optima")},
        [inspect.getsource(read_interactions), digest_of_modules(MODULES)],
        {name: version(name) for name in LIBRARIES},
        content_digest(sources),
    ]
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()
    place = kept / f"{folder.name}-{digest[:16]}"
    paths = {
        step: [place / f"step-{step}{ending}.parquet" for ending in ("", ".solve")]
        for step in steps
    }
    if (place / CHECKSUMS).is_file():
        check_checksums(place, mend=f"delete {place}, and start again")
        samples, _ = to_values(tables.read(sources[0], tables.LOG_ODDS), str(sources[0]))
        # As they were written: the tables of a study have another order of rows.
        return samples, {
            step: (pl.read_parquet(of_interactions), pl.read_parquet(of_solve))
            for step, (of_interactions, of_solve) in paths.items()
        }
    samples, found = read_interactions(folder, steps, config, mapped)
    place.mkdir(parents=True, exist_ok=True)
    for step, pair in found.items():
        for table, path in zip(pair, paths[step], strict=True):
            table.write_parquet(path)
    write_checksums(place)
    return samples, found


def choose_by_interactions(
    folder: Path,
    steps: Sequence[int],
    config: Mapping[str, Any],
    mapped: Mapped = in_turn,
    kept: Path | None = None,
) -> Judged:
    """The checkpoints that the three arms with interactions choose, and what the protocol finds.

    Args:
        folder: of the run.
        steps: its checkpoints.
        config: the resolved study.
        mapped: shares the work out, see :class:`~sft_interactions.parallel.Mapped`.
        kept: see :func:`keep_interactions`; None to keep nothing.
    """
    samples, checkpoints = (
        read_interactions(folder, steps, config, mapped)
        if kept is None
        else keep_interactions(kept, folder, steps, config, mapped)
    )
    rule = config["salience"]
    salient = {
        step: select_salient(*pair, rule["rule"], rule["threshold"])
        for step, pair in checkpoints.items()
    }
    by_thresholds = select_by_first(
        {step: interactions for step, (interactions, _) in checkpoints.items()}, rule["threshold"]
    )
    n_players, level = config["players"]["n"], config["bootstrap"]["level"]
    dynamics, dynamics_by_first = (
        add_generalizability(classify(one), None, n_players) for one in (salient, by_thresholds)
    )

    def released(until: Sequence[int]) -> int:
        return detect_stages(
            dynamics.filter(pl.col("step") <= until[-1]),
            {},
            samples,
            until,
            n_players,
            share=config["stages"]["removed_share"],
            seed=config["seed"],
            **config["bootstrap"],
        )["best_checkpoint_step"]

    tested, by_first = (
        examine(rows, samples, steps, n_players, level=level)
        for rows in (dynamics, dynamics_by_first)
    )
    grows = tested.parts.filter(pl.col("finding") == 2, pl.col("part") == "2.1 many")
    mended = steps[-1]
    if tested.stage.high is not None and grows["verdict"].item() == "supported":
        mended = tested.stage.high
    return Judged(
        samples,
        dynamics,
        {
            RELEASED: released(steps),
            MENDED: mended,
            ONLINE: choose_as_they_arrive(steps, released),
        },
        tested,
        by_first,
        describe(dynamics, samples, steps, level),
    )


def choose_as_they_arrive(steps: Sequence[int], rule: Callable[[Sequence[int]], int]) -> int:
    """The checkpoint that a rule chooses twice in a row while checkpoints arrive, else the last.

    Args:
        steps: all checkpoints.
        rule: from the checkpoints so far to one of them, earlier than the newest.
    """
    before = None
    for n in range(LEAST_CHECKPOINTS, len(steps) + 1):
        now = rule(steps[:n])
        if now == before and now < steps[n - 2]:
            return now
        before = now
    return steps[-1]


def choose_at_plateau(steps: Sequence[int], train_loss: Mapping[int, float]) -> int:
    """The first checkpoint before which the training loss falls by less than a twentieth, else the last.

    Means over the steps between two neighbouring checkpoints are held against each other.
    """
    for before, start, end in zip(steps, steps[1:], steps[2:], strict=False):
        earlier, later = (
            float(np.mean([train_loss[step] for step in range(one + 1, other + 1)]))
            for one, other in ((before, start), (start, end))
        )
        if later > (1 - PLATEAU) * earlier:
            return end
    return steps[-1]


def choose_by_losses(run: Run, others: Sequence[Run]) -> dict[str, int]:
    """The checkpoints that the arms without interactions choose; `random` is none.

    Args:
        others: the runs of the other tasks.
    """

    def lowest(course: Sequence[float]) -> int:
        return run.steps[int(np.argmin(course))]

    found = {
        SAME_PROMPTS: lowest(run.losses["analysis"]),
        VALIDATION: lowest(run.losses["validation"]),
        TRAINING: choose_at_plateau(run.steps, run.train_loss),
        LAST_BUT_ONE: run.steps[-2],
        LAST: run.steps[-1],
        ORACLE: lowest(run.losses["test"]),
    }
    if others:
        found[FIXED] = lowest(np.mean([other.losses["test"] for other in others], axis=0).tolist())
    return found


def tabulate(runs: Sequence[Run], by_interactions: Sequence[Mapping[str, int]]) -> pl.DataFrame:
    """One row a run and arm: the step that it chooses, the test loss there, and its regret, in nats.

    `step` is null for `random`, whose test loss is the mean over the checkpoints after step 0.
    """
    rows = []
    for run, interactions in zip(runs, by_interactions, strict=True):
        others = [other for other in runs if other.task != run.task]
        steps = {**interactions, **choose_by_losses(run, others)}
        test = dict(zip(run.steps, run.losses["test"], strict=True))
        expected = float(np.mean([loss for step, loss in test.items() if step > 0]))
        for arm in ARMS:
            if arm == RANDOM or arm in steps:
                loss = expected if arm == RANDOM else test[steps[arm]]
                rows.append(
                    {
                        "run": run.name,
                        "task": run.task,
                        "learning_rate": run.rate,
                        "label_noise": run.noise,
                        "seed": run.seed,
                        "arm": arm,
                        "step": steps.get(arm),
                        "test_loss": loss,
                        "regret": loss - min(test.values()),
                    }
                )
    return pl.DataFrame(rows, schema_overrides={"step": pl.Int64})


@dataclass(frozen=True)
class Interval:
    """A mean over cells of the mean over seeds, with the interval for other seeds of the same cells."""

    mean: float
    low: float
    high: float
    degrees: int


def pool(values: Mapping[tuple[Any, ...], Sequence[float]], level: float = 0.95) -> Interval:
    """Mean over cells and its interval, from the variance within cells (docs/stopping.md).

    Args:
        values: cell to a number a seed.
        level: confidence level, between 0 and 1.

    Returns:
        Without a cell of several seeds, bounds that are NaN.
    """
    cells = [np.asarray(cell, dtype=np.float64) for cell in values.values()]
    mean = float(np.mean([cell.mean() for cell in cells]))
    degrees = sum(len(cell) - 1 for cell in cells)
    if not degrees:
        return Interval(mean, float("nan"), float("nan"), 0)
    variance = sum(((cell - cell.mean()) ** 2).sum() for cell in cells) / degrees
    error = np.sqrt(variance * sum(1 / len(cell) for cell in cells)) / len(cells)
    half = float(stats.t.ppf((1 + level) / 2, degrees) * error)
    return Interval(mean, mean - half, mean + half, degrees)


def compare(choices: pl.DataFrame, one: str, other: str) -> Interval:
    """Test loss of one arm less that of another, paired by run, in nats."""
    wide = choices.pivot(
        on="arm", index=["task", "learning_rate", "label_noise", "seed"], values="test_loss"
    )
    cells: dict[tuple[Any, ...], list[float]] = {}
    for *cell, difference in wide.select(
        "task", "learning_rate", "label_noise", pl.col(one) - pl.col(other)
    ).iter_rows():
        cells.setdefault(tuple(cell), []).append(difference)
    return pool(cells)


def verdict(interval: Interval, n_runs: int) -> str:
    """What the primary interval says, by the rule that was written before the first run."""
    if n_runs < MANY_RUNS:
        return f"open: {n_runs} of {MANY_RUNS} runs are finished"
    if interval.high < 0:
        return "interactions choose better"
    if interval.low > 0:
        return "interactions choose worse"
    if interval.high < NON_INFERIOR:
        return f"not worse by more than {NON_INFERIOR} nats"
    return "it cannot be told; more seeds are needed"


def summarise(choices: pl.DataFrame, near: Mapping[str, Sequence[int]]) -> pl.DataFrame:
    """One row an arm: mean regret over cells, by task, rate and noise, and how often it is near the oracle.

    Args:
        choices: what :func:`tabulate` returns.
        near: run to the oracle's checkpoint and its neighbours.
    """
    rows = []
    for arm in [arm for arm in ARMS if arm in choices["arm"]]:
        of_arm = choices.filter(pl.col("arm") == arm)

        def mean(*conditions: pl.Expr, rows: pl.DataFrame = of_arm) -> float | None:
            chosen = rows.filter(*conditions)
            cells = chosen.group_by("task", "learning_rate", "label_noise").agg(
                pl.col("regret").mean()
            )
            return None if cells.is_empty() else cells["regret"].sort().mean()  # type: ignore[return-value]

        hits = [
            step in near[run] for run, step in of_arm.select("run", "step").drop_nulls().iter_rows()
        ]
        rows.append(
            {
                "arm": arm,
                "regret": mean(),
                **{
                    task: mean(pl.col("task") == task)
                    for task in choices["task"].unique(maintain_order=True)
                },
                **{
                    f"rate {rate:g}": mean(pl.col("learning_rate") == rate)
                    for rate in sorted(set(choices["learning_rate"]))
                },
                **{
                    f"noise {noise:g}": mean(pl.col("label_noise") == noise)
                    for noise in sorted(set(choices["label_noise"]))
                },
                "near_oracle": float(np.mean(hits)) if hits else None,
            }
        )
    return pl.DataFrame(rows)


def tabulate_findings(runs: Sequence[Run], judged: Sequence[Judged]) -> pl.DataFrame:
    """One row a run: where its denoising ends, and the findings by the protocol.

    Finding 3 also with the thresholds of the first checkpoint.
    """
    return pl.DataFrame(
        [
            {
                "run": run.name,
                "denoising_ends": found.tested.stage.answer,
                **{f"finding {k}": verdict for k, verdict in verdicts_of(found.tested).items()},
                "finding 3, thresholds of step 0": verdicts_of(found.by_first)[3],
            }
            for run, found in zip(runs, judged, strict=True)
        ]
    )


def verdicts_of(tested: Tested) -> dict[int, str]:
    """Number of a finding to its verdict."""
    rows = conclude(tested.parts.with_columns(run=pl.lit("")))
    return dict(rows.select("finding", "verdict").iter_rows())


def tabulate_parts(judged: Sequence[Judged]) -> pl.DataFrame:
    """One row a part of a finding: its mean value, and in how many runs it has which verdict."""
    rows = pl.concat([found.tested.parts for found in judged])
    verdicts = ("supported", "contradicted", "inconclusive")
    return rows.group_by("part", "statistic", "claim", maintain_order=True).agg(
        pl.col("value").mean(), *((pl.col("verdict") == one).sum().alias(one) for one in verdicts)
    )


def tabulate_seeds(runs: Sequence[Run], judged: Sequence[Judged], level: float) -> pl.DataFrame:
    """Rows of the protocol over the seeds of each cell that has enough of them."""

    def of_cell(seeds: Sequence[Judged]) -> pl.DataFrame:
        return tabulate_over_seeds([one.tested for one in seeds], level)

    return _tabulate_cells(runs, judged, of_cell, FEWEST_SEEDS)


def tabulate_agreement(runs: Sequence[Run], judged: Sequence[Judged], level: float) -> pl.DataFrame:
    """What the seeds of each cell share, of those with two or more."""
    steps = runs[0].steps

    def of_cell(seeds: Sequence[Judged]) -> pl.DataFrame:
        samples = seeds[0].samples
        return agreement.tabulate([one.dynamics for one in seeds], samples, steps, level)

    return _tabulate_cells(runs, judged, of_cell, 2)


def _tabulate_cells(
    runs: Sequence[Run],
    judged: Sequence[Judged],
    tabulate_cell: Callable[[Sequence[Judged]], pl.DataFrame],
    fewest: int,
) -> pl.DataFrame:
    """Rows of a table over the seeds of each cell that has at least ``fewest``."""
    cells: dict[str, list[Judged]] = {}
    for run, found in zip(runs, judged, strict=True):
        cells.setdefault(run.name.removesuffix(f"-seed{run.seed}"), []).append(found)
    parts = [
        tabulate_cell(of_seeds).select(
            pl.lit(name).alias("runs"), pl.lit(len(of_seeds)).alias("n_seeds"), pl.all()
        )
        for name, of_seeds in cells.items()
        if len(of_seeds) >= fewest
    ]
    return pl.concat(parts) if parts else pl.DataFrame()


def compare_noise(runs: Sequence[Run], judged: Sequence[Judged]) -> pl.DataFrame:
    """What label noise changes: means of clean and noisy runs, paired by task, learning rate and seed.

    Looked at after the runs, so it tells what to test next, and no more. The intervals are Student's t over
    the cells, each the mean of its seeds.

    Returns:
        Rows (quantity, clean, noisy, difference, ci_low, ci_high, cells), those of losses last, in nats.
    """
    found: dict[tuple[str, float, int, bool], dict[str, float]] = {}
    for run, of_run in zip(runs, judged, strict=True):
        validation = run.losses["validation"]
        tail = [run.train_loss[step] for step in range(run.steps[-2] + 1, run.steps[-1] + 1)]
        losses = {
            "training loss at the end": float(np.mean(tail)),
            "validation loss at the end": validation[-1],
            "validation loss, end less lowest": validation[-1] - min(validation),
        }
        key = run.task, run.rate, run.seed, run.noise > 0
        found[key] = {**of_run.quantities, **losses}
    pairs: dict[tuple[str, float], list[tuple[str, float, int]]] = {}
    for task, rate, seed, noisy in found:
        if not noisy and (task, rate, seed, True) in found:
            pairs.setdefault((task, rate), []).append((task, rate, seed))
    rows = []
    for quantity in next(iter(found.values()), {}) if pairs else ():
        clean, noisy = (
            np.array(
                [np.mean([found[*key, label][quantity] for key in cell]) for cell in pairs.values()]
            )
            for label in (False, True)
        )
        mean, half = (noisy - clean).mean(), float("nan")
        if len(pairs) > 1:
            error = (noisy - clean).std(ddof=1) / np.sqrt(len(pairs))
            half = float(stats.t.ppf(0.975, len(pairs) - 1) * error)
        rows.append(
            {
                "quantity": quantity,
                "clean": clean.mean(),
                "noisy": noisy.mean(),
                "difference": mean,
                "ci_low": mean - half,
                "ci_high": mean + half,
                "cells": len(pairs),
            }
        )
    return pl.DataFrame(rows)


def compare_arms(
    runs: Sequence[Run], judged: Sequence[Judged]
) -> tuple[dict[str, pl.DataFrame], Interval]:
    """The tables choices, arms and differences, and the primary difference."""
    choices = tabulate(runs, [found.choices for found in judged])
    near = {}
    for run in runs:
        best = int(np.argmin(run.losses["test"]))
        near[run.name] = run.steps[max(best - 1, 0) : best + 2]
    arms = summarise(choices, near)
    pairs = []
    for arm in [arm for arm in arms["arm"] if arm != SAME_PROMPTS]:
        found = compare(choices, arm, SAME_PROMPTS)
        pairs.append(
            {
                "arm": arm,
                "difference": found.mean,
                "ci_low": found.low,
                "ci_high": found.high,
                "degrees": found.degrees,
            }
        )
    written = {"choices": choices, "arms": arms, "differences": pl.DataFrame(pairs)}
    return written, compare(choices, *PRIMARY)


def is_finished(folder: Path, steps: Sequence[int]) -> bool:
    """Whether a run has all that the study asks for."""
    files = [
        "losses.parquet",
        "training.parquet",
        *(f"log_odds/step-{step}.parquet" for step in steps),
    ]
    return all((folder / file).is_file() for file in files)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    reference = ROOT / "results" / "reference" / "stopping"
    parser.add_argument("--runs", type=Path, default=reference, help="folder of the runs' folders")
    parser.add_argument("--output", type=Path, help="folder of the tables; RUNS/tables by default")
    parser.add_argument("--config", type=Path, default=ROOT / "config" / "stopping.yaml")
    parser.add_argument(
        "--reading", choices=[SINGLE, JOINT, DEFAULT], help="of the interactions; the study's"
    )
    parser.add_argument("--cores", type=int, default=1, help="processes that share the samples")
    parser.add_argument("--kept", type=Path, help="folder of this machine for what is extracted")
    options = parser.parse_args()
    given, places = config_file.read([options.config])
    config = resolve(given, places)
    of_study = config["optima"]["reading"]
    reading = options.reading or of_study
    if reading == DEFAULT:
        config = resolve(
            {key: value for key, value in given.items() if key not in ("extraction", "optima")}
        )
    else:
        config = {**config, "optima": {**config["optima"], "reading": reading}}
    finished = {
        name: settings
        for name, settings in config["runs"].items()
        if is_finished(options.runs / name, settings["steps"])
    }
    if not finished:
        parser.error(
            f"{options.runs}: no run of {options.config} is finished there; name it by --runs"
        )
    missing = [name for name in config["runs"] if name not in finished]
    runs = [
        read_run(
            options.runs / name,
            name,
            settings,
            config["datasets"][settings["dataset"]].get("label_noise", 0.0),
        )
        for name, settings in finished.items()
    ]
    with Workers(options.cores) as workers:
        judged = [
            choose_by_interactions(
                options.runs / run.name, run.steps, config, workers.map, options.kept
            )
            for run in runs
        ]
    output = options.output or options.runs / "tables"
    output = output if reading == of_study else output / reading
    output.mkdir(parents=True, exist_ok=True)
    size = {
        "n_players": config["players"]["n"],
        "n_samples": max(one["analysis"] for one in config["datasets"].values()),
    }
    written = {
        "findings": tabulate_findings(runs, judged),
        "parts": tabulate_parts(judged),
    }
    # The arms are those of the study, and of no other reading.
    primary = None
    if reading == of_study:
        compared, primary = compare_arms(runs, judged)
        written |= {**compared, "noise": compare_noise(runs, judged)}
    level = config["bootstrap"]["level"]
    written |= {
        "seed-verdicts": tabulate_seeds(runs, judged, level),
        "seed-agreement": tabulate_agreement(runs, judged, level),
    }
    written = {name: table for name, table in written.items() if len(table)}
    for name, table in written.items():
        paths = output / f"{name}.csv", output / f"{name}.md"
        report_table.write(table, *paths, **size, intervals=INTERVALS.get(name))
    print(f"{len(runs)} of {len(config['runs'])} runs are finished")
    if missing:
        print(f"not there: {', '.join(missing)}")
    for name, title in (
        ("arms", "mean regret over cells, nats"),
        ("differences", f"test loss less that of '{SAME_PROMPTS}', nats"),
        ("findings", "the findings by the protocol"),
        ("parts", "their parts, in how many runs"),
        ("noise", "30 % label noise against none"),
    ):
        if name in written:
            print(f"\n{title}:\n" + (output / f"{name}.md").read_text("utf-8"))
    if primary is not None:
        print(
            f"primary: {primary.mean:+.4f} nats, 95 % interval {primary.low:+.4f} to "
            f"{primary.high:+.4f}: {verdict(primary, len(runs))}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
