import polars as pl

from job import start
from sft_interactions import tables
from sft_interactions.analysis.paper import compare
from sft_interactions.analysis.runs import read_runs

start(snakemake)
runs = read_runs(snakemake.params.labels, snakemake.input.metrics, snakemake.input.stages)
table = compare(pl.read_csv(snakemake.input.paper), runs)
tables.write_report_table(table, snakemake.output.csv, snakemake.output.md)
