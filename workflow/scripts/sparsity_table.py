from pathlib import Path

import polars as pl

from job import start
from sft_interactions import tables
from sft_interactions.analysis.salience import select_salient
from sft_interactions.analysis.sparsity import n_possible, summarize_counts

start(snakemake)
params = snakemake.params
parts = []
for run, steps, stages in zip(params.runs, params.steps, snakemake.input.stages, strict=True):
    for step in steps:
        stem = Path(stages).parent / "interactions" / f"step-{step}"
        interactions = tables.read(stem.with_suffix(".parquet"), tables.INTERACTIONS)
        solve = tables.read(stem.with_suffix(".solve.parquet"), tables.SOLVE)
        summary = summarize_counts(
            interactions,
            select_salient(interactions, solve, **params.salience),
            solve["sample_id"].to_list(),
            seed=params.seed,
            **params.bootstrap,
        )
        parts.append(summary.select(pl.lit(run).alias("run"), pl.lit(step).alias("step"), pl.all()))
possible = pl.lit(n_possible(params.n_players)).alias("possible")
table = pl.concat(parts).with_columns(possible)
tables.write_report_table(table, snakemake.output.csv, snakemake.output.md)
