from job import start
from sft_interactions import tables
from sft_interactions.dynamics import add_generalizability, classify
from sft_interactions.salience import read_salient

provenance = start(snakemake)
salience = snakemake.params.salience
files = zip(
    snakemake.params.steps, snakemake.input.interactions, snakemake.input.solve, strict=True
)
classes = classify({step: read_salient(*paths, salience) for step, *paths in files})
baseline = read_salient(*snakemake.input.baseline, salience) if snakemake.input.baseline else None
dynamics = add_generalizability(classes, baseline, snakemake.params.n_players)
tables.write(dynamics, snakemake.output[0], tables.DYNAMICS, **provenance)
