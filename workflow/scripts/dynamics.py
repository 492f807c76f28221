from job import start
from sft_interactions import tables
from sft_interactions.analysis.dynamics import add_generalizability, classify
from sft_interactions.analysis.salience import read_salient

provenance = start(snakemake)
salience = snakemake.params.salience
files = zip(
    snakemake.params.steps, snakemake.input.interactions, snakemake.input.solve, strict=True
)
classes = classify({step: read_salient(*paths, salience) for step, *paths in files})
reference = (
    read_salient(*snakemake.input.reference, salience) if snakemake.input.reference else None
)
dynamics = add_generalizability(classes, reference, snakemake.params.n_players)
tables.write(dynamics, snakemake.output[0], tables.DYNAMICS, **provenance)
