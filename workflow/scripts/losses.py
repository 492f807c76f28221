import polars as pl

from job import start
from sft_interactions import tables

provenance = start(snakemake)
of_steps = [tables.read(path, tables.LOSSES) for path in snakemake.input]
tables.write(pl.concat(of_steps), snakemake.output[0], tables.LOSSES, **provenance)
