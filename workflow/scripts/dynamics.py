from job import start
from sft_interactions import tables
from sft_interactions.dynamics import add_generalizability, classify
from sft_interactions.salience import select_salient

provenance = start(snakemake)


def salient(interactions_path, solve_path):
    return select_salient(
        tables.read(interactions_path, tables.INTERACTIONS),
        tables.read(solve_path, tables.SOLVE),
        **snakemake.params.salience,
    )


steps = zip(
    snakemake.params.steps, snakemake.input.interactions, snakemake.input.solve, strict=True
)
classes = classify({step: salient(*paths) for step, *paths in steps})
baseline = salient(*snakemake.input.baseline) if snakemake.input.baseline else None
dynamics = add_generalizability(classes, baseline, snakemake.params.n_players)
tables.write(dynamics, snakemake.output[0], tables.DYNAMICS, **provenance)
