import polars as pl

from job import start
from sft_interactions import report_table, tables
from sft_interactions.analysis.findings import conclude
from sft_interactions.analysis.protocol import examine
from sft_interactions.analysis.turnover import tabulate

provenance = start(snakemake)
files, params, output = snakemake.input, snakemake.params, snakemake.output
measured, turnovers, ends = [], [], []
for run, steps, dynamics, solve in zip(
    params.runs, params.steps, files.dynamics, files.solve, strict=True
):
    rows = tables.read(dynamics, tables.DYNAMICS)
    samples = tables.read(solve, tables.SOLVE, ["sample_id"])["sample_id"].to_list()
    tested = examine(rows, samples, steps, params.n_players, level=params.level)
    turnover = tabulate(rows, samples, steps, params.level)
    measured.append(tested.parts.with_columns(run=pl.lit(run)))
    turnovers.append(turnover.with_columns(run=pl.lit(run)))
    ends.append({"run": run, "denoising_ends": tested.stage.answer})
published = tables.read(files.findings, tables.FINDINGS, ["run", "finding", "verdict"])
parts = tables.check(pl.concat(measured), tables.FINDING_PARTS, "protocol_parts")
verdicts = (
    conclude(parts)
    .join(pl.DataFrame(ends), on="run")
    .join(published.rename({"verdict": "as_published"}), on=["run", "finding"])
)
protocol = tables.check(verdicts, tables.PROTOCOL, "protocol")
turnover = tables.check(pl.concat(turnovers), tables.TURNOVER, "turnover")
for name, table, schema in (
    ("protocol", protocol, tables.PROTOCOL),
    ("parts", parts, tables.FINDING_PARTS),
    ("turnover", turnover, tables.TURNOVER),
):
    tables.write(table, output[name], schema, **provenance)
    report_table.write(table, output[f"{name}_csv"], output[f"{name}_md"], **params.size)
