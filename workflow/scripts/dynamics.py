from job import start
from sft_interactions import tables
from sft_interactions.analysis.dynamics import add_generalizability, classify
from sft_interactions.analysis.salience import read_salient

provenance = start(snakemake)
params, files = snakemake.params, snakemake.input
salient = {
    step: read_salient(interactions, solve, params.salience)
    for step, interactions, solve in zip(params.steps, files.interactions, files.solve, strict=True)
}
reference = read_salient(*files.reference, params.salience) if files.reference else None
dynamics = add_generalizability(classify(salient), reference, params.n_players)
tables.write(dynamics, snakemake.output[0], tables.DYNAMICS, **provenance)
