import json
from pathlib import Path

import polars as pl

from job import start
from sft_interactions import tables
from sft_interactions.analysis.findings import conclude, measure_parts

provenance = start(snakemake)
params = snakemake.params
parts = []
for run, steps, *paths in zip(
    params.runs,
    params.steps,
    snakemake.input.dynamics,
    snakemake.input.unchanged,
    snakemake.input.solve,
    snakemake.input.stages,
    strict=True,
):
    dynamics, unchanged, solve, stages = paths
    unchanged = tables.read(unchanged, tables.UNCHANGED)
    tested = measure_parts(
        tables.read(dynamics, tables.DYNAMICS),
        unchanged.partition_by("draw", include_key=False),
        tables.read(solve, tables.SOLVE, ["sample_id"])["sample_id"].to_list(),
        steps,
        json.loads(Path(stages).read_text()),
        params.n_players,
        unchanged_samples=params.unchanged_samples,
        seed=params.seed,
        **params.bootstrap,
    )
    parts.append(tested.with_columns(run=pl.lit(run)))
parts = tables.check(pl.concat(parts), tables.FINDING_PARTS, "finding_parts")
findings = tables.check(conclude(parts), tables.FINDINGS, "findings")
tables.write(parts, snakemake.output.parts, tables.FINDING_PARTS, **provenance)
tables.write(findings, snakemake.output.findings, tables.FINDINGS, **provenance)
tables.write_report_table(findings, snakemake.output.csv, snakemake.output.md)
tables.write_report_table(parts, snakemake.output.parts_csv, snakemake.output.parts_md)
