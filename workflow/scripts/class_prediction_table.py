from job import start
from sft_interactions import tables
from sft_interactions.analysis.runs import read_runs
from sft_interactions.figures import carriers as fig4

start(snakemake)
runs = read_runs(snakemake.params.runs, snakemake.input.metrics, snakemake.input.stages)
tables.write_report_table(fig4.tabulate(runs), snakemake.output.csv, snakemake.output.md)
