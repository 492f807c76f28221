import polars as pl

from job import start
from sft_interactions import tables
from sft_interactions.analysis.metrics import compute_metrics_over_seeds

start(snakemake)
params = snakemake.params
paths = iter(snakemake.input.dynamics)
parts = []
for (name, runs), steps, solve in zip(
    params.repeated.items(), params.steps, snakemake.input.solve, strict=True
):
    metrics = compute_metrics_over_seeds(
        [tables.read(next(paths), tables.DYNAMICS) for _ in runs],
        tables.read(solve, tables.SOLVE, ["sample_id"])["sample_id"].to_list(),
        steps,
        params.n_players,
        seed=params.seed,
        **params.bootstrap,
    ).filter(pl.col("order").is_null(), pl.col("kind") == "both", pl.col("n_samples") > 0)
    parts.append(
        metrics.select(
            pl.lit(name).alias("runs"),
            pl.lit(len(runs)).alias("n_seeds"),
            pl.exclude("order", "kind"),
        )
    )
tables.write_report_table(pl.concat(parts), snakemake.output.csv, snakemake.output.md)
