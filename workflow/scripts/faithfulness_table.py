from pathlib import Path

import polars as pl

from job import start
from sft_interactions import tables
from sft_interactions.analysis.faithfulness import read_log_odds, relative_errors, summarize_errors

start(snakemake)
params = snakemake.params
records = []
for run, steps, stages in zip(params.runs, params.steps, snakemake.input.stages, strict=True):
    for step in steps:
        log_odds = read_log_odds(Path(stages).parent, step, params.salience)
        for interactions, phi in (("all", log_odds.logical), ("salient", log_odds.salient)):
            errors = relative_errors(phi, log_odds.llm)
            summary = summarize_errors(errors, seed=params.seed, **params.bootstrap)
            records.append({"run": run, "step": step, "interactions": interactions, **summary})
tables.write_report_table(pl.DataFrame(records), snakemake.output.csv, snakemake.output.md)
