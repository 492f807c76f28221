from job import start
from sft_interactions import tables
from sft_interactions.analysis.metrics import compute_metrics

provenance = start(snakemake)
samples = tables.read(snakemake.input.solve, tables.SOLVE, ["sample_id"])["sample_id"].to_list()
unchanged = tables.read(snakemake.input.unchanged, tables.UNCHANGED)
metrics = compute_metrics(
    tables.read(snakemake.input.dynamics, tables.DYNAMICS),
    samples,
    snakemake.params.steps,
    snakemake.params.n_players,
    seed=snakemake.params.seed,
    unchanged=unchanged.partition_by("draw", include_key=False),
    unchanged_samples=snakemake.params.unchanged_samples,
    **snakemake.params.bootstrap,
)
tables.write(metrics, snakemake.output[0], tables.METRICS, **provenance)
