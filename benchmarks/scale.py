"""What a large study (benchmarks/scale.yaml) costs: planning, disk, memory of the analysis, GPU time.

    python benchmarks/scale.py FOLDER

Writes into FOLDER the tables of one run and of its reference run at step 0, filled with random numbers,
each with as many rows as a table can have, and lets the workflow's own rules read them. Prints Markdown.
"""

import argparse
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import yaml

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "workflow"))

from sft_interactions import tables  # noqa: E402
from sft_interactions.analysis.choices import READINGS, SINGLE  # noqa: E402
from sft_interactions.analysis.dynamics import add_generalizability, classify  # noqa: E402
from sft_interactions.analysis.salience import read_salient  # noqa: E402
from sft_interactions.config import resolve  # noqa: E402

STUDY = ROOT / "benchmarks" / "scale.yaml"
PROVENANCE = {"created_by": "scale", "inputs_digest": "0"}
# One thread of a fast CPU: 171e9 in a float32 matrix product, with masked inference at 1.6 times its
# floor. benchmarks/inference.py measures both on the machine at hand.
FLOPS = 171e9 / 1.6
# Parameters of the LLMs, as their names say.
BILLIONS = {"qwen25_3b": 3, "qwen25_7b": 7, "llama2_7b": 7, "llama3_8b": 8, "gemma3_4b": 4}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, help="where the tables go")
    parser.add_argument("--samples", type=int, default=500)
    parser.add_argument("--tokens", type=int, default=200, help="of a prompt with its template")
    parser.add_argument("--flops", type=float, default=FLOPS, help="operations a second reached")
    parser.add_argument("--make", action="store_true", help="only write the tables")
    return parser.parse_args()


def measured(command):
    """Run a command.

    Returns:
        Its output, CPU seconds, and peak resident MiB of its largest process.
    """
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT
    )
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(output)
    return output, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def snakemake(*options):
    return measured([sys.executable, "-m", "snakemake", *map(str, options)])


def plan():
    print("| planning | jobs | submissions | CPU s | peak MiB |\n|---|---|---|---|---|")
    slurm = ["--profile", "profiles/slurm", "--software-deployment-method", "env-modules"]
    for name, options in (("one machine", ["--cores", "8"]), ("profiles/slurm", slurm)):
        shown, seconds, peak = snakemake("--dry-run", "--configfile", STUDY, *options)
        jobs = re.search(r"^total +(\d+)$", shown, re.M)[1]
        submissions = len(re.findall(r"^(?:\[.*\] Group job|Job \d+:) ", shown, re.M))
        print(f"| {name} | {jobs} | {submissions} | {seconds:.1f} | {peak:.0f} |", flush=True)


def interactions(generator, ids, n):
    """One effect for every masking, which is the most that a vertex of the linear program has."""
    size = 2**n
    pattern = np.tile(np.arange(size, dtype=np.uint32), len(ids))
    # Heavy tails: the largest is about 2, and 5 % of it leaves one to two hundred of 4096.
    effect = 0.015 * generator.standard_t(1.7, len(pattern))
    order = np.bitwise_count(pattern)
    kind = generator.integers(0, 2, len(pattern)) * (order > 1) + 2 * (order == 0)
    return pl.DataFrame(
        {
            "sample_id": np.repeat(ids, size),
            "kind": np.array(["and", "or", "bias"])[kind],
            "pattern": pattern,
            "order": order,
            "effect": effect,
        }
    )


def solve(ids, n):
    column = np.ones(len(ids))
    return pl.DataFrame(
        {
            "sample_id": ids,
            **{name: column for name in tables.SOLVE.columns if name != "sample_id"},
            "n_players": [n] * len(ids),
            "log_odds_difference": 3 * column,
            "log_odds_range": 4 * column,
        }
    )


def make_tables(folder, run, steps, ids, n, seed):
    generator = np.random.default_rng(seed)
    for step in steps:
        stem = folder / "runs" / run / "interactions" / f"step-{step}"
        made = interactions(generator, ids, n)
        tables.write(made, f"{stem}.parquet", tables.INTERACTIONS, **PROVENANCE)
        tables.write(solve(ids, n), f"{stem}.solve.parquet", tables.SOLVE, **PROVENANCE)
    log_odds = pl.DataFrame(
        {
            "sample_id": np.repeat(ids, 2**n),
            "mask": np.tile(np.arange(2**n, dtype=np.uint32), len(ids)),
            "log_odds": generator.standard_normal(len(ids) * 2**n).astype(np.float32),
        }
    )
    path = folder / "runs" / run / "log_odds" / f"step-{steps[0]}.parquet"
    tables.write(log_odds, path, tables.LOG_ODDS, **PROVENANCE)


def make_study(folder, n_samples):
    """The tables of the study's first run, and of its reference run at step 0."""
    study = resolve(yaml.safe_load(STUDY.read_text()))
    run = next(iter(study["runs"]))
    settings = study["runs"][run]
    steps, reference_run, n = settings["steps"], settings["reference_run"], study["players"]["n"]
    ids = np.array([f"sample-{i:012d}" for i in range(n_samples)])
    make_tables(folder, run, steps, ids, n, seed=0)
    make_tables(folder, reference_run, steps[:1], ids, n, seed=1)

    def salient(name, step):
        stem = folder / "runs" / name / "interactions" / f"step-{step}"
        found = read_salient(f"{stem}.parquet", f"{stem}.solve.parquet", study["salience"])
        return found.filter(pl.col("sample_id").is_in(ids[: study["stability"]["samples"]]))

    classes = add_generalizability(
        classify({step: salient(run, step) for step in steps}), salient(reference_run, 0), n
    )
    draws = range(study["stability"]["draws"])
    unchanged = pl.concat([classes.with_columns(draw=pl.lit(draw)) for draw in draws])
    tables.write(
        unchanged, folder / "runs" / run / "unchanged.parquet", tables.UNCHANGED, **PROVENANCE
    )
    readings = pl.concat(
        [classes.with_columns(reading=pl.lit(name)) for name in READINGS if name != SINGLE]
    )
    tables.write(
        readings, folder / "runs" / run / "readings.parquet", tables.READINGS, **PROVENANCE
    )
    training = pl.DataFrame(
        {"step": steps, "train_loss": 1.0, "validation_loss": 1.0, "learning_rate": 0.0}
    )
    tables.write(
        training, folder / "runs" / run / "training.parquet", tables.TRAINING, **PROVENANCE
    )


def analyse(folder, n_samples):
    command = [sys.executable, __file__, str(folder), "--samples", str(n_samples), "--make"]
    _, seconds, peak = measured(command)
    print("\n| rule, one run | CPU s | peak MiB |\n|---|---|---|")
    print(f"| (writing the random tables) | {seconds:.1f} | {peak:.0f} |")
    study = yaml.safe_load(STUDY.read_text())
    run = next(iter(study["runs"]))
    study["results"] = str(folder)
    study["optima"] = {"reading": SINGLE}  # the random tables are of checkpoints by themselves
    keep = (run, study["runs"][run]["reference_run"])
    study["runs"] = {name: study["runs"][name] for name in keep}
    del study["runs"][keep[1]]["reference_run"]
    config = folder / "scale.yaml"
    config.write_text(yaml.safe_dump(study))
    targets = {
        "dynamics": f"runs/{run}/dynamics.parquet",
        "salience_sensitivity": f"tables/salience-{run}.csv",
        "metrics": f"runs/{run}/metrics.parquet",
        "stages": f"runs/{run}/stages.json",
    }
    for rule, target in targets.items():
        options = ["--configfile", config, "--directory", folder, "--cores", "1"]
        _, seconds, peak = snakemake(folder / target, "--force", *options, "--allowed-rules", rule)
        print(f"| {rule} | {seconds:.1f} | {peak:.0f} |", flush=True)
    disk(folder / "runs" / run, run, n_samples)


def disk(folder, run, n_samples):
    study = resolve(yaml.safe_load(STUDY.read_text()))
    n_runs, n_steps = len(study["runs"]), len(study["runs"][run]["steps"])
    print("\n| table | rows | MB | files | GB in the study |\n|---|---|---|---|---|")
    for pattern, files in (
        ("log_odds/step-0.parquet", n_runs * n_steps),
        ("interactions/step-0.parquet", n_runs * n_steps),
        ("dynamics.parquet", n_runs),
        ("unchanged.parquet", n_runs),
        ("metrics.parquet", n_runs),
    ):
        path = folder / pattern
        rows = pl.scan_parquet(path).select(pl.len()).collect().item()
        size = path.stat().st_size / 1e6
        print(f"| {pattern} | {rows} | {size:.1f} | {files} | {files * size / 1e3:.2f} |")


def hours(tokens, flops):
    """Time of the masked inference and of fine-tuning, from the multiplications they take."""
    study = resolve(yaml.safe_load(STUDY.read_text()))
    n = study["players"]["n"]
    # n + 1 segments of one length; segment k is forwarded once for each of the 2^k maskings before it.
    positions = tokens / (n + 1) * (2 ** (n + 1) - 1)
    inference = finetuning = 0.0
    for run in study["runs"].values():
        per_position = 2 * BILLIONS[run["model"]] * 1e9
        samples = study["datasets"][run["dataset"]]["analysis"] * len(run["steps"])
        inference += samples * positions * per_position
        schedule = run["finetune"]
        sequences = schedule["steps"] * schedule["batch_size"] * schedule["gradient_accumulation"]
        finetuning += sequences * tokens * 3 * per_position  # backward: twice the forward pass
    print(f"\nAt {flops:.3g} operations a second, {tokens} tokens a prompt, players spread evenly:")
    print(
        f"masked inference {positions:.0f} token positions a sample and checkpoint (every masking"
    )
    print(f"in full: {tokens * 2**n}), {inference / flops / 3600:.3g} hours in all;")
    print(f"fine-tuning {finetuning / flops / 3600:.3g} hours in all.")


def main():
    options = arguments()
    folder = options.folder.resolve()
    if options.make:
        make_study(folder, options.samples)
        return
    plan()
    analyse(folder, options.samples)
    hours(options.tokens, options.flops)


main()
