import polars as pl

from job import start
from sft_interactions import tables

start(snakemake)
parts = [
    tables.read(path, tables.SENSITIVITY).select(pl.lit(run).alias("run"), pl.all())
    for run, path in zip(snakemake.params.runs, snakemake.input.sensitivity, strict=True)
]
table = pl.concat(parts).drop("position", "statement", "threshold")
tables.write_report_table(table, snakemake.output.csv, snakemake.output.md)
