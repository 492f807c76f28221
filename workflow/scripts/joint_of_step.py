import polars as pl

from job import start
from sft_interactions import tables

provenance = start(snakemake)
joint = tables.scan(snakemake.input[0], tables.JOINT)
of_step = joint.filter(pl.col("step") == int(snakemake.wildcards.step)).drop("step").collect()
tables.write(of_step, snakemake.output[0], tables.INTERACTIONS, **provenance)
