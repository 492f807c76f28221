import polars as pl

from job import start
from sft_interactions import report_table, tables
from sft_interactions.analysis.dynamics import split_draws
from sft_interactions.analysis.findings import conclude, measure_parts
from sft_interactions.analysis.runs import tell_few_checkpoints

provenance = start(snakemake)
params = snakemake.params
files = snakemake.input
measured = []
for run, steps, dynamics, unchanged, solve, stages in zip(
    params.runs,
    params.steps,
    files.dynamics,
    files.unchanged,
    files.solve,
    files.stages,
    strict=True,
):
    rows = measure_parts(
        tables.read(dynamics, tables.DYNAMICS),
        split_draws(tables.read(unchanged, tables.UNCHANGED), params.draws),
        tables.read(solve, tables.SOLVE, ["sample_id"])["sample_id"].to_list(),
        steps,
        tables.read_json(stages),
        params.n_players,
        unchanged_samples=params.unchanged_samples,
        level=params.level,
    )
    measured.append(rows.with_columns(run=pl.lit(run)))
parts = tables.check(pl.concat(measured), tables.FINDING_PARTS, "finding_parts")
findings = tables.check(conclude(parts), tables.FINDINGS, "findings")
tables.write(parts, snakemake.output.parts, tables.FINDING_PARTS, **provenance)
tables.write(findings, snakemake.output.findings, tables.FINDINGS, **provenance)
below = {
    **params.size,
    "in_words": True,
    "notes": tell_few_checkpoints(dict(zip(params.runs, params.steps, strict=True))),
}
report_table.write(findings, snakemake.output.csv, snakemake.output.md, **below)
report_table.write(parts, snakemake.output.parts_csv, snakemake.output.parts_md, **below)
