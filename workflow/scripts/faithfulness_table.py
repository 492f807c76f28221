from pathlib import Path

import polars as pl

from job import start
from sft_interactions import tables
from sft_interactions.faithfulness import read_outputs, relative_errors, summarize_errors

start(snakemake)
params = snakemake.params
records = []
for run, steps, stages in zip(params.runs, params.steps, snakemake.input.stages, strict=True):
    for step in steps:
        outputs = read_outputs(Path(stages).parent, step, params.salience)
        for interactions, phi in (("all", outputs.logical), ("salient", outputs.salient)):
            errors = relative_errors(phi, outputs.llm)
            summary = summarize_errors(errors, seed=params.seed, **params.bootstrap)
            records.append({"run": run, "step": step, "interactions": interactions, **summary})
tables.write_report_table(pl.DataFrame(records), snakemake.output.csv, snakemake.output.md)
