"""How much of a known run is found again: planted AND-OR models, and readings of their log-odds.

    python benchmarks/planted.py              all parts; an hour and a half of one core
    python benchmarks/planted.py --quick      the same with few players and samples; two minutes
    python benchmarks/planted.py grid         one part: the readings that compete
    python benchmarks/planted.py joint        one part: which changes joint extraction makes least
    python benchmarks/planted.py readings     one part: more about some readings
    python benchmarks/planted.py scenarios    one part: runs in which a class is missing
    python benchmarks/planted.py verdicts     one part: how often findings are supported, and should not be
    python benchmarks/planted.py contradictions   one part: how often they are contradicted, but so
    python benchmarks/planted.py supports     one part: how often they are supported, but not so
    python benchmarks/planted.py seeds        one part: the same over three seeds
    python benchmarks/planted.py coverage     one part: how often intervals hold the truth

A `Reading` is a way from log-odds to salient interactions: noise bound, tie-break, salience rule (which
docs/validity.md and the tables call a setting), and what is kept of them. That page says what is planted,
by which rule the best one is chosen, and what came of it. The tables are Markdown; --output writes the
numbers behind them as JSON.
"""

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.special import ndtr, stdtrit

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "workflow"))

from sft_interactions.analysis.choices import Choice  # noqa: E402
from sft_interactions.analysis.dynamics import (  # noqa: E402
    CLASSES,
    add_generalizability,
    classify,
)
from sft_interactions.analysis.findings import (  # noqa: E402
    Part,
    conclude,
    open_where_all_agree,
)
from sft_interactions.analysis.intervals import interval, values_of  # noqa: E402
from sft_interactions.analysis.metrics import Cells, ratios, summarize, support  # noqa: E402
from sft_interactions.analysis.planted import (  # noqa: E402
    SCENARIOS,
    PlantedRun,
    count_hits,
    metric_errors,
    plant,
    score,
)
from sft_interactions.analysis.protocol import (  # noqa: E402
    FEWEST_SEEDS,
    Quantities,
    Tested,
    examine,
    examine_over_seeds,
    measure,
)
from sft_interactions.analysis.protocol import PARTS as PARTS_OF_PROTOCOL  # noqa: E402
from sft_interactions.analysis.salience import (  # noqa: E402
    Salience,
    select_by_first,
    select_salient,
)
from sft_interactions.analysis.selection import Selector  # noqa: E402
from sft_interactions.analysis.sensitivity import (  # noqa: E402
    ExtractedRun,
    extract_checkpoints,
    extract_run,
    vary_findings,
)
from sft_interactions.analysis.stability import ChurnFloor  # noqa: E402
from sft_interactions.analysis.stages import Bootstrap, bootstrap_weights  # noqa: E402
from sft_interactions.analysis.turnover import Stage, observed  # noqa: E402
from sft_interactions.extraction import Extraction, extract  # noqa: E402
from sft_interactions.extraction.interactions import from_extraction  # noqa: E402
from sft_interactions.extraction.joint import (  # noqa: E402
    JointExtraction,
    every_pair,
    extract_joint,
    neighbours,
    neighbours_and_first,
)
from sft_interactions.extraction.ranges import effect_ranges  # noqa: E402

TRUTH: Salience = {"rule": "max_effect", "threshold": 0.05}
COUNT_RATIOS = 0.67, 1.5
Log = Mapping[int, NDArray[np.float64]]  # step to v, (B, 2^n)
Salient = dict[int, pl.DataFrame]  # step to rows of salient interactions


@dataclass(frozen=True)
class Reading:
    """A way from log-odds to salient interactions.

    Attributes:
        noise_ratio: ζ.
        noise_scale: what ζ is a share of.
        tie_break: tie-break of the extraction.
        threshold: τ, a share of the sample's largest |effect|.
        kept: a name of `KEPT`.
    """

    noise_ratio: float = 0.04
    noise_scale: str = "sample"
    tie_break: str = "canonical"
    threshold: float = 0.05
    kept: str = "all"

    @property
    def name(self) -> str:
        parts = [f"ζ {self.noise_ratio:g}"]
        parts += [f"of {self.noise_scale}"] if self.noise_ratio else []
        parts += [self.tie_break, f"τ {self.threshold:g}"]
        return ", ".join(parts + ([] if self.kept == "all" else [self.kept]))

    @property
    def of_extraction(self) -> dict[str, Any]:
        """Settings of `extract`."""
        return {key: getattr(self, key) for key in ("noise_ratio", "noise_scale", "tie_break")}

    @property
    def salience(self) -> Salience:
        return {"rule": "max_effect", "threshold": self.threshold}


TODAY = Reading()
# The best of the grid at full size; the other parts take it where the grid is not run before.
CHOSEN = Reading(noise_scale="mean", tie_break="high_order")
NOISE_RATIOS = 0.0, 0.01, 0.02, 0.04, 0.08
NOISE_SCALES = "sample", "mean", "range"
TIE_BREAKS = "canonical", "high_order"
THRESHOLDS = 0.02, 0.05, 0.1
# Without a bound its scale does not matter.
GRID = [
    Reading(*choice)
    for choice in product(NOISE_RATIOS, NOISE_SCALES, TIE_BREAKS, THRESHOLDS)
    if choice[0] or choice[1] == TODAY.noise_scale
]


def distance(reading: Reading) -> tuple[int, int, int]:
    """How far from today's reading: settings that differ, then steps of ζ, then of τ."""
    mine, own = asdict(reading), asdict(TODAY)
    return (
        sum(mine[key] != own[key] for key in own),
        abs(NOISE_RATIOS.index(reading.noise_ratio) - NOISE_RATIOS.index(TODAY.noise_ratio)),
        abs(THRESHOLDS.index(reading.threshold) - THRESHOLDS.index(TODAY.threshold)),
    )


class Reader:
    """Reads a run, and extracts no table twice.

    Args:
        run: its log-odds are read.
    """

    def __init__(self, run: PlantedRun) -> None:
        self.run, self.samples = run, list(run.samples)
        self._solved: dict[tuple[object, ...], Extraction] = {}
        self._tables: dict[tuple[object, ...], tuple[pl.DataFrame, pl.DataFrame]] = {}

    def values(self, step: int | None) -> NDArray[np.float64]:
        """v at a checkpoint, or of the reference model (None)."""
        return self.run.reference_values if step is None else self.run.values[step]

    def solved(self, reading: Reading, step: int | None) -> Extraction:
        """Interactions of all samples of one checkpoint."""
        key = (*reading.of_extraction.values(), step)
        if key not in self._solved:
            self._solved[key] = extract(self.values(step), **reading.of_extraction)
        return self._solved[key]

    def tables(self, reading: Reading, step: int | None) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Rows of the ``interactions`` and of the ``solve`` table."""
        key = (*reading.of_extraction.values(), step)
        if key not in self._tables:
            solved = self.solved(reading, step)
            self._tables[key] = from_extraction(self.samples, self.values(step), solved)
        return self._tables[key]

    def salient(self, reading: Reading, step: int | None) -> pl.DataFrame:
        """Rows of the salient interactions, whatever is kept of them."""
        return select_salient(*self.tables(reading, step), **reading.salience)

    def classes(self, reading: Reading) -> pl.DataFrame:
        """Class of every salient interaction, see `classify`."""
        return classify(KEPT[reading.kept](self, reading))

    def dynamics(self, reading: Reading) -> pl.DataFrame:
        """Rows of a ``dynamics`` table."""
        reference = self.salient(reading, None)
        return add_generalizability(self.classes(reading), reference, self.run.n_players)


def keep_all(reader: Reader, reading: Reading) -> Salient:
    return {step: reader.salient(reading, step) for step in reader.run.steps}


def keep_above_first(reader: Reader, reading: Reading) -> Salient:
    """With the threshold of each sample that it has at the first checkpoint."""
    checkpoints = {step: reader.tables(reading, step)[0] for step in reader.run.steps}
    return select_by_first(checkpoints, reading.threshold)


def keep_certain(reader: Reader, reading: Reading) -> Salient:
    """Those that have their sign in every optimum."""
    found = {}
    for step in reader.run.steps:
        rows, solved = reader.salient(reading, step), reader.solved(reading, step)
        place = (
            np.searchsorted(reader.samples, rows["sample_id"].to_numpy()),
            (rows["kind"] == "or").to_numpy().astype(int),
            rows["pattern"].to_numpy(),
        )
        wanted = np.zeros((len(reader.samples), 2, solved.and_effects.shape[1]), dtype=bool)
        wanted[place] = True
        certain = effect_ranges(reader.values(step), solved, wanted).sign_certain
        found[step] = rows.filter(pl.Series(certain[place]))
    return found


def keep_joint(reader: Reader, reading: Reading) -> Salient:
    """Of the optima that change least along the run."""
    steps = reader.run.steps
    values = [reader.values(step) for step in steps]
    solved = [reader.solved(reading, step) for step in steps]
    joint = extract_joint(values, solved, tie_break=reading.tie_break)
    return dict(zip(steps, select_joint(reader, reading, values, joint), strict=True))


def select_joint(
    reader: Reader,
    reading: Reading,
    values: Sequence[NDArray[np.float64]],
    joint: JointExtraction,
) -> list[pl.DataFrame]:
    """Salient interactions of each of the checkpoints, whose log-odds are given."""
    return [
        select_salient(*from_extraction(reader.samples, v, solved), **reading.salience)
        for v, solved in zip(values, joint.checkpoints, strict=True)
    ]


def keep_stable(reader: Reader, reading: Reading) -> Salient:
    """Those that most perturbed extractions have, as with the defaults of a study, around the own ζ."""
    ratio = reading.noise_ratio
    selector = Selector(
        {
            "draws": 10,
            "noise": 1e-3,
            "noise_ratios": [ratio / 2, ratio, 2 * ratio],
            "tie_breaks": ["canonical", "high_order", "prefer_or", "hash-1"],
        },
        reading.salience,
        seed=0,
        noise_scale=reading.noise_scale,
    )
    found = {}
    for step in reader.run.steps:
        interactions, solve = reader.tables(reading, step)
        shares = selector(interactions, reader.values(step), reader.samples)
        found[step] = select_salient(shares, solve, "stable", reading.threshold)
    return found


KEPT: dict[str, Callable[[Reader, Reading], Salient]] = {
    "all": keep_all,
    "τ of the first checkpoint": keep_above_first,
    "certain sign": keep_certain,
    "joint": keep_joint,
    "stable": keep_stable,
}
# What competes on top of the best of the grid.
ON_TOP = "certain sign", "joint", "stable"


@dataclass(frozen=True)
class Setting:
    """What is planted.

    Attributes:
        n_players: n.
        n_samples: B.
        noise: standard deviation of the noise, in parts of the range of v.
        background: weak interactions, in parts of the number before SFT.
        scenario: a name of `SCENARIOS`.
        n_checkpoints: checkpoints.
        seed: of the draw.
        training: repeat of the training; None for the only one.
    """

    n_players: int
    n_samples: int
    noise: float
    background: float = 0.0
    scenario: str = "mixed"
    n_checkpoints: int = 6
    seed: int = 0
    training: int | None = None

    @property
    def name(self) -> str:
        weak = " and weak ones" if self.background else ""
        return f"n {self.n_players}, {100 * self.noise:g} %{weak}"

    def plant(self) -> PlantedRun:
        return plant(
            self.scenario,
            self.n_players,
            self.n_samples,
            n_checkpoints=self.n_checkpoints,
            noise=self.noise,
            background=self.background,
            seed=self.seed,
            training=self.training,
        )


class Trial:
    """A setting and its truth.

    Attributes:
        truth: rows of a ``dynamics`` table of the planted interactions.
    """

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.run = setting.plant()
        self.reader = Reader(self.run)
        self.truth = add_generalizability(
            classify(self.run.salient(TRUTH)), self.run.reference_salient(TRUTH), self.run.n_players
        )

    def hits(self, classes: pl.DataFrame) -> NDArray[np.int64]:
        """See `count_hits`; at the checkpoints after the first."""
        return count_hits(classes, self.truth, list(self.run.samples), self.run.steps[1:])

    def errors(self, dynamics: pl.DataFrame, samples: Sequence[str]) -> pl.DataFrame:
        """See `metric_errors`; of some of the samples."""
        chosen = pl.col("sample_id").is_in(list(samples))
        found, truth = dynamics.filter(chosen), self.truth.filter(chosen)
        return metric_errors(found, truth, samples, self.run.steps, self.run.n_players)


def f1(hits: NDArray[np.int64]) -> float:
    """F1, a mean over the classes."""
    return float(np.nanmean(score(hits).f1))


def count_ratio(hits: NDArray[np.int64]) -> float:
    """Salient interactions that are found, over those planted, at all checkpoints after the first."""
    salient = [CLASSES.index("preserved"), CLASSES.index("emerged")]
    found, planted, _ = hits[:, :, salient].sum(axis=(0, 1, 2))
    return float(found / planted)


def jackknife(hits: NDArray[np.int64], other: NDArray[np.int64]) -> float:
    """Variance of the difference of the F1 of two readings of the same samples."""
    n_samples = len(hits)
    left_out = [np.arange(n_samples) != sample for sample in range(n_samples)]
    differences = np.array([f1(hits[rest]) - f1(other[rest]) for rest in left_out])
    return float((n_samples - 1) / n_samples * ((differences - differences.mean()) ** 2).sum())


def choose(rows: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The row of the reading that the rule of docs/validity.md chooses."""
    low, high = COUNT_RATIOS
    within = [row for row in rows if all(low <= ratio <= high for ratio in row["count_ratios"])]
    best = max(within or rows, key=lambda row: row["f1"])
    tied = [
        row
        for row in within or rows
        if row is best or best["f1"] - row["f1"] <= difference_error(best, row)
    ]
    return min(tied, key=lambda row: (distance(row["reading"]), -row["f1"]))


def difference_error(row: Mapping[str, Any], other: Mapping[str, Any]) -> float:
    """Standard error of the difference of two mean F1, over the samples of all settings."""
    pairs = list(zip(row["hits"], other["hits"], strict=True))
    return float(np.sqrt(sum(jackknife(*pair) for pair in pairs)) / len(pairs))


def measure_grid(settings: Sequence[Setting], readings: Sequence[Reading]) -> list[dict[str, Any]]:
    """One row a reading: its F1, ratio of counts and hits in every setting, and their mean F1."""
    rows: list[dict[str, Any]] = [
        {"reading": reading, "f1s": [], "count_ratios": [], "hits": []} for reading in readings
    ]
    for setting in settings:
        print(f"grid: {setting.name}", file=sys.stderr, flush=True)
        trial = Trial(setting)
        for row in rows:
            hits = trial.hits(trial.reader.classes(row["reading"]))
            row["f1s"].append(f1(hits))
            row["count_ratios"].append(count_ratio(hits))
            row["hits"].append(hits)
    for row in rows:
        row["f1"] = float(np.mean(row["f1s"]))
    return rows


COMPARED = {
    "chain": neighbours,
    "chain and first": neighbours_and_first,
    "pairs": every_pair,
}


def run_joint(settings: Sequence[Setting], reading: Reading) -> list[dict[str, Any]]:
    """Joint extraction with other sums of changes: F1, cost, and what a copy of the first one lacks."""
    rows: list[dict[str, Any]] = [
        {"sum": name, "f1s": [], "hits": [], "unequal": [], "seconds": 0.0} for name in COMPARED
    ]
    for setting in settings:
        print(f"joint: {setting.name}", file=sys.stderr, flush=True)
        trial = Trial(setting)
        reader, steps = trial.reader, trial.run.steps
        values = [reader.values(step) for step in steps]
        solved = [reader.solved(reading, step) for step in steps]
        for row in rows:
            start = time.process_time()
            settings_of = {"tie_break": reading.tie_break, "compared": COMPARED[row["sum"]]}
            joint = extract_joint(values, solved, **settings_of)
            row["seconds"] += time.process_time() - start
            salient = dict(zip(steps, select_joint(reader, reading, values, joint), strict=True))
            row["hits"].append(trial.hits(classify(salient)))
            row["f1s"].append(f1(row["hits"][-1]))
            copied = [*values, values[0]]
            joint = extract_joint(copied, [*solved, solved[0]], **settings_of)
            first, *_, copy = select_joint(reader, reading, copied, joint)
            key = ["sample_id", "kind", "pattern", "positive"]
            own, other = (
                one.with_columns(positive=pl.col("effect") > 0).select(key) for one in (first, copy)
            )
            unequal = [len(a.join(b, on=key, how="anti")) for a, b in ((own, other), (other, own))]
            row["unequal"].append(max(unequal) / len(own))
    best = max(rows, key=lambda row: float(np.mean(row["f1s"])))
    print_table(
        ["sum", *(f"F1: {s.name}" for s in settings), "mean", "less the best", "copy", "CPU s"],
        [
            [
                row["sum"],
                *row["f1s"],
                f"{np.mean(row['f1s']):.4f}",
                f"{np.mean(row['f1s']) - np.mean(best['f1s']):.4f} ± {difference_error(best, row):.4f}",
                f"{100 * min(row['unequal']):.1f} to {100 * max(row['unequal']):.1f} %",
                f"{row['seconds']:.0f}",
            ]
            for row in rows
        ],
    )
    return [{key: value for key, value in row.items() if key != "hits"} for row in rows]


def print_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    print(f"\n| {' | '.join(header)} |\n|{'---|' * len(header)}")
    for row in rows:
        cells = [f"{cell:.2f}" if isinstance(cell, float) else str(cell) for cell in row]
        print(f"| {' | '.join(cells)} |")
    print(flush=True)


def run_grid(settings: Sequence[Setting], shown: int) -> tuple[dict[str, Any], Reading]:
    """Let the readings compete, then what is kept on top of the best; return all and the chosen one."""
    grid, chosen = run_round(settings, GRID, shown)
    readings = [chosen, *(replace(chosen, kept=name) for name in ON_TOP)]
    on_top, chosen = run_round(settings, readings, shown)
    return {"grid": grid, "on_top": on_top, "chosen": asdict(chosen)}, chosen


def run_round(
    settings: Sequence[Setting], readings: Sequence[Reading], shown: int
) -> tuple[list[dict[str, Any]], Reading]:
    """Print the readings that compete, the best first, and today's; return all and the chosen one."""
    rows = measure_grid(settings, readings)
    chosen = choose(rows)
    ranked = sorted(rows, key=lambda row: -row["f1"])
    for row in ranked:
        row["error"] = difference_error(ranked[0], row)
    listed = [
        row
        for place, row in enumerate(ranked)
        if place < shown or row is chosen or row["reading"] == TODAY
    ]
    low, high = COUNT_RATIOS
    print_table(
        ["setting", *(f"F1: {s.name}" for s in settings), "mean", "± to the best", "counts"],
        [
            [
                f"**{row['reading'].name}**" if row is chosen else row["reading"].name,
                *row["f1s"],
                f"{row['f1']:.3f}",
                f"{row['error']:.3f}",
                f"{min(row['count_ratios']):.2f} to {max(row['count_ratios']):.2f}"
                + ("" if all(low <= r <= high for r in row["count_ratios"]) else " (out)"),
            ]
            for row in listed
        ],
    )
    print(f"chosen: {chosen['reading'].name}\n", flush=True)
    records = [
        {
            **asdict(row["reading"]),
            **{key: row[key] for key in ("f1", "f1s", "count_ratios", "error")},
        }
        for row in ranked
    ]
    return records, chosen["reading"]


def variants(own: Reading) -> list[Reading]:
    """A reading, and those that differ from it in one setting."""
    found = [own]
    found += [replace(own, noise_ratio=ratio) for ratio in NOISE_RATIOS]
    found += [replace(own, noise_scale=scale) for scale in NOISE_SCALES]
    found += [replace(own, tie_break=name) for name in TIE_BREAKS]
    found += [replace(own, threshold=threshold) for threshold in THRESHOLDS]
    found += [replace(own, kept=name) for name in KEPT]
    return list(dict.fromkeys(found))


def describe(trial: Trial, reading: Reading, block: int) -> dict[str, Any]:
    """Scores and errors of a reading, means over blocks of so many samples, and the spread of F1."""
    dynamics = trial.reader.dynamics(reading)
    hits = trial.hits(dynamics)
    n_blocks = len(hits) // block
    measured = []
    for number in range(n_blocks):
        rows = slice(number * block, (number + 1) * block)
        scores = score(hits[rows])
        errors = {
            (label, metric): np.nan if error is None else error
            for label, metric, error in trial.errors(
                dynamics, list(trial.run.samples[rows])
            ).iter_rows()
        }
        measured.append(
            {
                **{
                    f"{label} {name}": float(getattr(scores, name)[place])
                    for place, label in enumerate(CLASSES)
                    for name in ("precision", "recall", "f1", "count_ratio")
                },
                **{f"{label} {metric} error": value for (label, metric), value in errors.items()},
                "f1": f1(hits[rows]),
                "count_ratio": count_ratio(hits[rows]),
            }
        )
    means = {key: float(np.mean([row[key] for row in measured])) for key in measured[0]}
    spread = float(np.std([row["f1"] for row in measured], ddof=1)) if n_blocks > 1 else None
    return {**means, "f1 spread": spread, "blocks": n_blocks}


def run_readings(
    settings: Sequence[Setting], readings: Sequence[Reading], blocks: Sequence[int]
) -> list[dict[str, Any]]:
    """Print a table a setting and number of samples (and one of all samples), a row a reading."""
    records = []
    for setting in settings:
        print(f"readings: {setting.name}", file=sys.stderr, flush=True)
        trial = Trial(setting)
        for block in sorted({*(b for b in blocks if b < setting.n_samples), setting.n_samples}):
            rows = [(reading, describe(trial, reading, block)) for reading in readings]
            print(f"{setting.name}, {block} samples", flush=True)
            print_table(
                [
                    "setting",
                    *(f"{label}: P / R" for label in CLASSES),
                    "F1",
                    "counts",
                    *(f"{name}: P, E, R" for name in ("order", "γ", "ρ")),
                ],
                [
                    [
                        reading.name,
                        *(
                            f"{row[f'{label} precision']:.2f} / {row[f'{label} recall']:.2f}"
                            for label in CLASSES
                        ),
                        f"{row['f1']:.2f}"
                        + ("" if row["f1 spread"] is None else f" ± {row['f1 spread']:.2f}"),
                        row["count_ratio"],
                        *(
                            ", ".join(f"{row[f'{label} {metric} error']:+.2f}" for label in CLASSES)
                            for metric in ("mean_order", "gamma", "rho")
                        ),
                    ]
                    for reading, row in rows
                ],
            )
            records += [
                {**asdict(setting), **asdict(reading), "samples": block, **row}
                for reading, row in rows
            ]
    return records


def run_scenarios(
    setting: Setting, readings: Sequence[Reading], noises: Sequence[float]
) -> list[dict[str, Any]]:
    """Print what is planted in every scenario at the last checkpoint and what readings find."""
    records = []
    for scenario, noise in product(SCENARIOS, noises):
        trial = Trial(replace(setting, scenario=scenario, noise=noise))
        for reading in readings:
            hits = trial.hits(trial.reader.classes(reading))[:, -1].mean(axis=0)
            counts = {
                f"{label} {name}": float(hits[place, column])
                for place, label in enumerate(CLASSES)
                for column, name in enumerate(("found", "planted"))
            }
            records.append({"scenario": scenario, "noise": noise, **asdict(reading), **counts})
    print_table(
        ["scenario", "noise", "setting", *(f"{label}: found / planted" for label in CLASSES)],
        [
            [
                row["scenario"],
                f"{100 * row['noise']:g} %",
                Reading(**{key: row[key] for key in asdict(TODAY)}).name,
                *(f"{row[f'{c} found']:.1f} / {row[f'{c} planted']:.1f}" for c in CLASSES),
            ]
            for row in records
        ],
    )
    return records


# Runs in which findings must not be supported, or whose stages are planted, and what is planted.
NULLS: Mapping[str, Sequence[int]] = {
    "unchanged": (1, 2, 3, 4, 5),
    "drift": (1, 2, 3, 4, 5),
    "independent": (1, 2, 3, 4, 5),
    "interpolation": (1, 2, 3, 4, 5),
    "overfitting": (1, 3, 4, 5),
    "denoising": (2,),
    "slow_removal": (1, 2, 3),
    "two_stages": (),
    "as_claimed": (),
    "mixed": (),
}
# Those of one LLM that changes in another way than claimed, and of none that is trained.
UNTRUE = "unchanged", "drift", "independent", "interpolation", "overfitting", "slow_removal"
# Where the loss rate falls.
WITH_STAGE = "denoising", "slow_removal", "two_stages", "as_claimed", "mixed"
# The part of the protocol about what is removed in the stage.
EARLY = "3.2 most"
# The scenario in which every part of every finding is so.
WITH_EVERY_PART = "as_claimed"
FLOOR: ChurnFloor = {"samples": 8, "churn_noise": 1e-3, "draws": 2}
# Whose coverage is measured: what tables have, and three that they do not have (docs/validity.md). That
# of the logit differs from what they have in the parts about γ alone.
INTERVALS = ("printed", "logit", "bootstrap", "expanded bootstrap")
BOOTSTRAP: Bootstrap = {"resamples": 500, "level": 0.95}
# Whose coverage is measured, of both kinds; the first two of single orders too.
METRICS = ("count", "strength_total", "gamma", "rho", "mean_order", "contribution", "cross_entropy")


def plant_and_extract(
    setting: Setting, number: int, choice: Choice, draws: int = 0
) -> tuple[PlantedRun, ExtractedRun]:
    """The planted run of that number and what is extracted from it, with draws of the churn floor."""
    run = replace(setting, seed=1000 + number).plant()
    samples = list(run.samples)
    extracted = extract_run(
        choice, run.values, samples, stability={**FLOOR, "draws": draws}, seed=number
    )
    first = run.steps[0]
    of_reference = extract_checkpoints(choice, {first: run.reference_values}, samples, seed=number)
    return run, replace(extracted, references={choice.reference_model: of_reference[first]})


def run_verdicts(
    settings: Sequence[Setting], reading: Reading, n_runs: int
) -> list[dict[str, Any]]:
    """Print how often each finding is supported, by the protocol and as published."""
    choice = Choice(reading.salience, reading.noise_ratio, reading.noise_scale, reading.tie_break)
    records = []
    for setting in settings:
        tried: dict[str, Counter[Any]] = {"protocol": Counter(), "published": Counter()}
        answers: Counter[str] = Counter()
        parts: Counter[Any] = Counter()
        early = []
        for number in range(n_runs):
            run, extracted = plant_and_extract(setting, number, choice, FLOOR["draws"])
            published = vary_findings(
                extracted, {"own": choice}, bootstrap=BOOTSTRAP, removed_share=0.9, seed=number
            )
            tested = examine_planted(run, extracted, reading.salience)
            answers[tested.stage.answer] += 1
            parts.update(tested.parts.select("part", "verdict").iter_rows())
            if tested.values:
                found = values_of(tested.values[EARLY])[0]
                early.append([found, planted_value(EARLY, run, tested.stage)])
            rows = conclude(tested.parts.with_columns(run=pl.lit("")))
            for name, verdicts in (("protocol", rows), ("published", published)):
                tried[name].update(verdicts.select("finding", "verdict").iter_rows())
        print(f"verdicts: {setting.scenario}, {setting.name}", file=sys.stderr, flush=True)
        records.append(
            {
                "scenario": setting.scenario,
                "players": setting.n_players,
                "samples": setting.n_samples,
                "noise": setting.noise,
                "runs": n_runs,
                "stage": dict(answers),
                "parts": {part.name: parts[part.name, "supported"] for part in PARTS_OF_PROTOCOL},
                "early": [float(value) for value in np.mean(early, axis=0)] if early else [],
                "early contradicted": parts[EARLY, "contradicted"],
                **by_finding(tried),
            }
        )
    print_table(
        [
            "scenario",
            "samples",
            "noise",
            "end of denoising",
            *(f"finding {k}" for k in range(1, 6)),
        ],
        [
            [
                row["scenario"],
                row["samples"],
                f"{100 * row['noise']:g} %",
                ", ".join(f"{a} {n}" for a, n in sorted(row["stage"].items(), key=lambda x: -x[1])),
                *supported(row, "protocol", "published"),
            ]
            for row in records
        ],
    )
    print_table(
        ["scenario", "samples", f"{EARLY}: found", "planted", "supported", "contradicted"],
        [
            [
                row["scenario"],
                row["samples"],
                *row["early"],
                row["parts"][EARLY],
                row["early contradicted"],
            ]
            for row in records
            if row["early"] and row["scenario"] in WITH_STAGE
        ],
    )
    claimed = [row for row in records if row["scenario"] == WITH_EVERY_PART]
    print_table(
        ["part", *(f"{WITH_EVERY_PART}, {row['samples']} samples" for row in claimed)],
        [[part.name, *(row["parts"][part.name] for row in claimed)] for part in PARTS_OF_PROTOCOL],
    )
    return records


def run_seeds(settings: Sequence[Setting], reading: Reading, n_groups: int) -> list[dict[str, Any]]:
    """Print how often each finding is supported over three seeds of a training, and in its first alone."""
    choice = Choice(
        reading.salience,
        reading.noise_ratio,
        reading.noise_scale,
        reading.tie_break,
        reading="joint",
    )
    records = []
    for setting in settings:
        tried: dict[str, Counter[Any]] = {"one seed": Counter(), "three seeds": Counter()}
        for number in range(n_groups):
            tested = []
            for training in range(FEWEST_SEEDS):
                run, extracted = plant_and_extract(
                    replace(setting, training=training), number, choice
                )
                tested.append(examine_planted(run, extracted, reading.salience))
            for name, parts in (
                ("one seed", tested[0].parts),
                ("three seeds", examine_over_seeds(tested, BOOTSTRAP["level"])),
            ):
                verdicts = conclude(parts.with_columns(run=pl.lit("")))
                tried[name].update(verdicts.select("finding", "verdict").iter_rows())
        print(f"seeds: {setting.scenario}, {setting.name}", file=sys.stderr, flush=True)
        records.append(
            {
                "scenario": setting.scenario,
                "players": setting.n_players,
                "samples": setting.n_samples,
                "noise": setting.noise,
                "groups": n_groups,
                **by_finding(tried),
            }
        )
    print_table(
        ["scenario", "samples", *(f"finding {k}: one / three seeds" for k in range(1, 6))],
        [
            [row["scenario"], row["samples"], *supported(row, "one seed", "three seeds")]
            for row in records
        ],
    )
    return records


def run_as_studies(
    settings: Sequence[Setting], readings: Mapping[str, Choice], n_runs: int
) -> list[dict[str, Any]]:
    """Print how often the protocol supports and contradicts each finding, in readings of studies.

    A star: the finding is not so there.
    """
    records = []
    for setting in settings:
        for name, choice in readings.items():
            tried: dict[str, Counter[Any]] = {"protocol": Counter()}
            parts: Counter[Any] = Counter()
            for number in range(n_runs):
                run, extracted = plant_and_extract(setting, number, choice)
                tested = examine_planted(run, extracted, choice.salience)
                parts.update(tested.parts.filter(verdict="contradicted")["part"].to_list())
                verdicts = conclude(tested.parts.with_columns(run=pl.lit("")))
                tried["protocol"].update(verdicts.select("finding", "verdict").iter_rows())
            print(f"{setting.scenario}, {name}", file=sys.stderr, flush=True)
            records.append(
                {
                    "scenario": setting.scenario,
                    "samples": setting.n_samples,
                    "reading": name,
                    "runs": n_runs,
                    "parts": dict(parts),
                    **by_finding(tried),
                }
            )
    print_table(
        [
            "scenario",
            "samples",
            "setting, reading",
            *(f"finding {k}: supported / contradicted" for k in range(1, 6)),
            "parts contradicted",
        ],
        [
            [
                row["scenario"],
                row["samples"],
                row["reading"],
                *(
                    f"{row[f'protocol {k} supported']} / {row[f'protocol {k} contradicted']}"
                    + (" *" if k in NULLS[row["scenario"]] else "")
                    for k in range(1, 6)
                ),
                ", ".join(f"{part} {n}" for part, n in sorted(row["parts"].items())),
            ]
            for row in records
        ],
    )
    return records


def readings_of_studies(chosen: Reading) -> dict[str, Choice]:
    """The reading that is the default, and the older ones that studies were read with."""
    single = {
        name: Choice(one.salience, one.noise_ratio, one.noise_scale, one.tie_break)
        for name, one in (("sample, low orders", TODAY), ("mean, high orders", chosen))
    }
    joint = replace(single["mean, high orders"], reading="joint")
    return {**single, "mean, high orders, joint": joint}


def by_finding(tried: Mapping[str, Counter[Any]]) -> dict[str, int]:
    """How often each finding is supported and contradicted, by who says so."""
    return {
        f"{name} {finding} {verdict}": counted[finding, verdict]
        for name, counted in tried.items()
        for finding in range(1, 6)
        for verdict in ("supported", "contradicted")
    }


def supported(row: Mapping[str, Any], *names: str) -> list[str]:
    """A cell a finding: how often it is supported; a star where it is not so."""
    return [
        " / ".join(str(row[f"{name} {finding} supported"]) for name in names)
        + (" *" if finding in NULLS[row["scenario"]] else "")
        for finding in range(1, 6)
    ]


def examine_planted(run: PlantedRun, extracted: ExtractedRun, salience: Salience) -> Tested:
    """What the protocol says of a planted run, as it was extracted."""
    (reference,) = extracted.references.values()
    classes = classify(
        {step: select_salient(*pair, **salience) for step, pair in extracted.checkpoints.items()}
    )
    return examine(
        add_generalizability(classes, select_salient(*reference, **salience), run.n_players),
        list(run.samples),
        run.steps,
        run.n_players,
        level=BOOTSTRAP["level"],
    )


def planted_value(name: str, run: PlantedRun, stage: Stage) -> float:
    """What a part of the protocol is of the planted interactions, for a stage."""
    dynamics = add_generalizability(classify(run.salient(TRUTH)), None, run.n_players)
    (part,) = (part for part in PARTS_OF_PROTOCOL if part.name == name)
    planted = Quantities(dynamics, list(run.samples), run.steps, stage, run.n_players)
    return float(values_of(part.compute(planted))[0])


def run_coverage(
    run: PlantedRun, dynamics: pl.DataFrame, blocks: Sequence[int], boundary: int
) -> list[dict[str, Any]]:
    """Print how often the intervals of the protocol's statistics hold the value of all samples."""
    samples = list(run.samples)
    stage = Stage(str(boundary), boundary, boundary, boundary, (0.0, 0.0, 0.0))
    parts = [part for part in PARTS_OF_PROTOCOL if not part.has_own_interval]

    whole = Quantities(dynamics, samples, run.steps, stage, run.n_players)
    truth = [float(values_of(part.compute(whole))[0]) for part in parts]
    records = []
    level = BOOTSTRAP["level"]
    for block in blocks:
        held = {name: np.zeros((len(parts), 2)) for name in INTERVALS}
        for start in range(0, len(samples) - block + 1, block):
            chosen = samples[start : start + block]
            rows = dynamics.filter(pl.col("sample_id").is_in(chosen))
            some = Quantities(rows, chosen, run.steps, stage, run.n_players)
            there = observed(rows, chosen)
            for place, (part, value) in enumerate(zip(parts, truth, strict=True)):
                found = measure(part, some, there, level)
                if found.interval[1] is None:
                    continue
                by_logit = interval(found.values[np.append(True, there)], level)
                drawn = resampled(some, part, block)
                for name, (low, high) in (
                    ("printed", found.interval[1:]),
                    ("logit", open_where_all_agree(*by_logit, found.agreeing, level)),
                    ("bootstrap", np.nanquantile(drawn, ends_of_bootstrap(0))),
                    ("expanded bootstrap", np.nanquantile(drawn, ends_of_bootstrap(block))),
                ):
                    held[name][place] += [low <= value <= high, 1]
        for place, part in enumerate(parts):
            records.append(
                {
                    "samples": block,
                    "part": part.name,
                    "value": truth[place],
                    "blocks": int(held["printed"][place, 1]),
                    **{name: float(np.divide(*counts[place])) for name, counts in held.items()},
                }
            )
    print_table(
        ["samples", "part", "value of all", "blocks", *(f"{name} holds it" for name in INTERVALS)],
        [
            [
                row["samples"],
                row["part"],
                f"{row['value']:.2f}",
                row["blocks"],
                *(f"{100 * row[name]:.1f} %" for name in INTERVALS),
            ]
            for row in records
        ],
    )
    return records


def run_coverage_of_metrics(
    run: PlantedRun, dynamics: pl.DataFrame, blocks: Sequence[int]
) -> list[dict[str, Any]]:
    """Print how often the intervals of `metrics` hold the value of all samples."""
    n_samples = len(run.samples)
    cells = Cells(dynamics, run.samples)
    # By block size and metric: of every checkpoint and class, blocks, those with an interval, and those
    # whose interval holds the value.
    held: dict[tuple[int, str], list[NDArray[np.int64]]] = {}
    for step, label in product(run.steps, CLASSES):
        for ratio in ratios(cells.rows(step, label), "both", n_samples, run.n_players):
            if ratio.metric not in (METRICS if ratio.order is None else METRICS[:2]):
                continue
            name = ratio.metric if ratio.order is None else f"{ratio.metric} of one order"
            whole = ratio.denominator.sum()
            for block in blocks if whole else ():
                found = [
                    summarize(
                        ratio.numerator[start : start + block],
                        ratio.denominator[start : start + block],
                        BOOTSTRAP["level"],
                        support(ratio.metric),
                    )
                    for start in range(0, n_samples - block + 1, block)
                ]
                ends = np.array(
                    [(one.ci_low, one.ci_high) for one in found if one.ci_low is not None]
                ).reshape(-1, 2)
                value = ratio.numerator.sum() / whole
                holds = (ends[:, 0] <= value) & (value <= ends[:, 1])
                counts = np.array([len(found), len(ends), holds.sum()])
                held.setdefault((block, name), []).append(counts)
    records = []
    for (block, metric), counts_of_cells in sorted(held.items()):
        of_cells = np.array(counts_of_cells)
        with_any = of_cells[of_cells[:, 1] > 0]
        shares = with_any[:, 2] / with_any[:, 1]
        records.append(
            {
                "samples": block,
                "metric": metric,
                "cells": len(of_cells),
                "with_interval": float(of_cells[:, 1].sum() / of_cells[:, 0].sum()),
                "holds": float(shares.mean()),
                "least": float(shares.min()),
            }
        )
    print_table(
        [
            "samples",
            "metric",
            "cells",
            "have an interval",
            "it holds the value",
            "in the least of the cells",
        ],
        [
            [
                row["samples"],
                row["metric"],
                row["cells"],
                *(f"{100 * row[key]:.1f} %" for key in ("with_interval", "holds", "least")),
            ]
            for row in records
        ],
    )
    return records


def ends_of_bootstrap(n_samples: int) -> tuple[float, float]:
    """Quantiles of the resamples that are the ends of a 95 % interval.

    Args:
        n_samples: for expanded percentiles of so many (Hesterberg 2015, The American Statistician 69); 0
            for plain ones.
    """
    level = BOOTSTRAP["level"]
    if not n_samples:
        return (1 - level) / 2, (1 + level) / 2
    reach = stdtrit(n_samples - 1, (1 + level) / 2) * (n_samples / (n_samples - 1)) ** 0.5
    return float(ndtr(-reach)), float(ndtr(reach))


def resampled(some: Quantities, part: Part[Quantities], n_samples: int) -> NDArray[np.float64]:
    """A statistic of resamples of some samples, (resamples,)."""
    usual = some._weights
    drawn = bootstrap_weights(n_samples, BOOTSTRAP["resamples"], 0)
    some._weights = np.concatenate([usual[:1], drawn])
    try:
        with np.errstate(invalid="ignore", divide="ignore"):
            return values_of(part.compute(some))[1:]
    finally:
        some._weights = usual


@dataclass(frozen=True)
class Size:
    """What is run.

    Attributes:
        competition: settings of the grid.
        described: settings in which today's reading, the chosen one and its variants are described.
        compared: settings in which today's reading and the chosen one are.
        blocks: numbers of samples of the latter.
        scenarios: setting of the scenarios, but for scenario and noise.
        noises: of the scenarios.
        tested: settings in which findings are tested.
        runs: runs of each of them.
        true: settings in which findings are so, and are tried in several readings.
        untrue: the same, of settings in which most are not so.
        repeated: settings in which findings are tested over seeds.
        groups: how often in each of them.
        coverage: settings whose samples are cut into blocks, each with numbers of samples of a block, the
            checkpoint that is taken for the end of the denoising stage, and whether intervals of metrics
            are looked at too.
    """

    competition: Sequence[Setting]
    described: Sequence[Setting]
    compared: Sequence[Setting]
    blocks: Sequence[int]
    scenarios: Setting
    noises: Sequence[float]
    tested: Sequence[Setting]
    runs: int
    true: Sequence[Setting]
    untrue: Sequence[Setting]
    repeated: Sequence[Setting]
    groups: int
    coverage: Sequence[tuple[Setting, Sequence[int], int, bool]]


NOISES = 0.002, 0.01, 0.02
# Scenarios of the seeds with more samples too.
TWICE = "two_stages", "as_claimed", "slow_removal"
FULL = Size(
    competition=[Setting(n, b, noise) for n, b in ((8, 20), (10, 8)) for noise in NOISES],
    described=[
        *(Setting(8, 20, noise) for noise in NOISES),
        Setting(8, 20, NOISES[0], background=2.0),
    ],
    compared=[Setting(8, 50, NOISES[1]), *(Setting(10, 8, noise) for noise in NOISES)],
    blocks=(8, 20, 50),
    scenarios=Setting(8, 20, 0.0),
    noises=NOISES,
    tested=[
        *(Setting(8, 8, noise, scenario="unchanged") for noise in NOISES),
        *(Setting(8, 8, NOISES[1], scenario=name) for name in NULLS if name != "unchanged"),
        *(
            Setting(8, 20, NOISES[1], scenario=name)
            for name in ("two_stages", "as_claimed", "denoising", "slow_removal")
        ),
        Setting(8, 50, NOISES[1], scenario="as_claimed"),
    ],
    runs=40,
    true=[Setting(8, samples, NOISES[1], scenario="as_claimed") for samples in (8, 16)]
    + [Setting(8, 16, NOISES[1], scenario="two_stages")],
    untrue=[Setting(8, 16, NOISES[1], scenario=name) for name in UNTRUE],
    repeated=[
        *(Setting(6, 8, NOISES[1], scenario=name) for name in NULLS),
        *(Setting(6, 20, NOISES[1], scenario=name) for name in TWICE),
    ],
    groups=40,
    coverage=[
        (Setting(6, 1600, NOISES[1], scenario=name, seed=seed), (5, 8, 16, 32), boundary, seed < 2)
        for name, seed, boundary in (
            ("two_stages", 0, 2),
            ("slow_removal", 0, 1),
            ("as_claimed", 1, 2),
            ("mixed", 1, 1),
            # Runs by which the intervals of parts about γ were judged.
            ("two_stages", 2, 2),
            ("slow_removal", 2, 1),
            ("as_claimed", 2, 2),
            ("mixed", 2, 1),
        )
    ],
)
QUICK = Size(
    competition=[Setting(5, 3, noise, n_checkpoints=3) for noise in NOISES[:2]],
    described=[Setting(5, 3, NOISES[1], n_checkpoints=3)],
    compared=[Setting(5, 4, NOISES[1], n_checkpoints=3)],
    blocks=(2,),
    scenarios=Setting(5, 3, 0.0, n_checkpoints=3),
    noises=NOISES[:1],
    tested=[
        Setting(5, 8, NOISES[1], scenario=name)
        for name in ("unchanged", "two_stages", "as_claimed")
    ],
    runs=2,
    true=[Setting(5, 8, NOISES[1], scenario="as_claimed")],
    untrue=[Setting(5, 8, NOISES[1], scenario="unchanged")],
    repeated=[Setting(5, 8, NOISES[1], scenario=name) for name in ("unchanged", "as_claimed")],
    groups=2,
    coverage=[(Setting(5, 32, NOISES[1], scenario="two_stages"), (8,), 2, True)],
)
PARTS = (
    "grid",
    "joint",
    "readings",
    "scenarios",
    "verdicts",
    "contradictions",
    "supports",
    "seeds",
    "coverage",
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="part", help=f"of {', '.join(PARTS)}; all")
    parser.add_argument("--quick", action="store_true", help="few players and samples")
    parser.add_argument("--shown", type=int, default=12, help="rows of the grid that are printed")
    parser.add_argument("--output", type=Path, help="JSON file of all numbers")
    options = parser.parse_args()
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"unknown part {min(unknown)!r}; choose from {', '.join(PARTS)}")
    parts = options.parts or PARTS
    size = QUICK if options.quick else FULL
    chosen = CHOSEN
    found: dict[str, Any] = {}
    start = time.process_time()
    if "grid" in parts:
        competed, chosen = run_grid(size.competition, options.shown)
        found.update(competed)
    compared = list(dict.fromkeys([TODAY, chosen]))
    if "joint" in parts:
        found["joint"] = run_joint(size.competition, replace(chosen, kept="all"))
    if "readings" in parts:
        every = list(dict.fromkeys([TODAY, *variants(chosen)]))
        found["readings"] = run_readings(size.described, every, [])
        found["readings"] += run_readings(size.compared, compared, size.blocks)
    if "scenarios" in parts:
        found["scenarios"] = run_scenarios(size.scenarios, compared, size.noises)
    if "verdicts" in parts:
        found["verdicts"] = run_verdicts(size.tested, chosen, size.runs)
    if "contradictions" in parts:
        readings = readings_of_studies(chosen)
        found["contradictions"] = run_as_studies(size.true, readings, size.runs)
    if "supports" in parts:
        readings = readings_of_studies(chosen)
        del readings["mean, high orders"]  # `verdicts` has it
        found["supports"] = run_as_studies(size.untrue, readings, size.runs)
    if "seeds" in parts:
        found["seeds"] = run_seeds(size.repeated, chosen, size.groups)
    if "coverage" in parts:
        found["coverage"], found["coverage of metrics"] = [], []
        for setting, blocks, boundary, with_metrics in size.coverage:
            run = setting.plant()
            dynamics = Reader(run).dynamics(chosen)
            print(f"\n{setting.scenario}, seed {setting.seed}")
            whose = {"scenario": setting.scenario, "seed": setting.seed}
            for row in run_coverage(run, dynamics, blocks, boundary):
                found["coverage"].append({**whose, **row})
            for row in run_coverage_of_metrics(run, dynamics, blocks) if with_metrics else []:
                found["coverage of metrics"].append({**whose, **row})
    print(f"{time.process_time() - start:.0f} s of CPU")
    if options.output:
        options.output.write_text(json.dumps(found, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
