import polars as pl

from job import start
from sft_interactions import tables

start(snakemake)
parts = []
for run, path in zip(snakemake.params.runs, snakemake.input.metrics, strict=True):
    rows = tables.read(path, tables.METRICS).filter(
        pl.col("order").is_null(), pl.col("kind") == "both", pl.col("n_samples") > 0
    )
    parts.append(rows.select(pl.lit(run).alias("run"), pl.exclude("order", "kind")))
tables.write_report_table(pl.concat(parts), snakemake.output.csv, snakemake.output.md)
