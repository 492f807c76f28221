import json
from pathlib import Path

import polars as pl

from job import start
from sft_interactions import tables
from sft_interactions.analysis.stages import tabulate

start(snakemake)
sizes = {
    path: tables.scan(path, tables.DATA).select(pl.len()).collect().item()
    for path in snakemake.input.train
}
table = tabulate(
    [json.loads(Path(path).read_text()) for path in snakemake.input.stages],
    [batch and batch / sizes[path] for batch, path in snakemake.params.batches],
)
tables.write_report_table(table, snakemake.output.csv, snakemake.output.md)
