from job import start
from sft_interactions import tables
from sft_interactions.metrics import compute_metrics

provenance = start(snakemake)
samples = tables.read(snakemake.input.solve, tables.SOLVE, ["sample_id"])["sample_id"]
metrics = compute_metrics(
    tables.read(snakemake.input.dynamics, tables.DYNAMICS),
    samples.to_list(),
    snakemake.params.steps,
    snakemake.params.n_players,
    seed=snakemake.params.seed,
    **snakemake.params.bootstrap,
)
tables.write(metrics, snakemake.output[0], tables.METRICS, **provenance)
