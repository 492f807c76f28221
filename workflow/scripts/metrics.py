from job import start
from sft_interactions import tables
from sft_interactions.analysis.dynamics import split_draws
from sft_interactions.analysis.metrics import compute_metrics

provenance = start(snakemake)
params, files = snakemake.params, snakemake.input
unchanged = tables.read(files.unchanged, tables.UNCHANGED)
readings = tables.read(files.readings, tables.READINGS).partition_by(
    "reading", include_key=False, as_dict=True
)
metrics = compute_metrics(
    tables.read(files.dynamics, tables.DYNAMICS),
    tables.read(files.solve, tables.SOLVE, ["sample_id"])["sample_id"].to_list(),
    params.steps,
    params.n_players,
    unchanged=split_draws(unchanged, params.draws),
    readings={name: rows for (name,), rows in readings.items()},
    unchanged_samples=params.unchanged_samples,
    level=params.level,
)
tables.write(metrics, snakemake.output[0], tables.METRICS, **provenance)
