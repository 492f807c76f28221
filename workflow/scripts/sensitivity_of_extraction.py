import polars as pl

from job import progress_bar, start
from sft_interactions import tables
from sft_interactions.analysis.dynamics import salient_at, split_draws
from sft_interactions.analysis.sensitivity import findings_of_classes

provenance = start(snakemake)
params, files = snakemake.params, snakemake.input
solve = tables.read(files.solve, tables.SOLVE, ["sample_id"])
parts = []
with progress_bar(snakemake, len(params.choices), "choice") as bar:
    for place, name in enumerate(params.choices):
        unchanged = tables.read(files.unchanged[place], tables.UNCHANGED)
        reference = None
        if files.reference:
            classes = tables.read(files.reference[place], tables.DYNAMICS)
            reference = salient_at(classes, params.reference_step)
        found = findings_of_classes(
            tables.read(files.dynamics[place], tables.DYNAMICS),
            split_draws(unchanged, params.draws),
            reference,
            solve["sample_id"].to_list(),
            params.n_players,
            steps=params.steps,
            unchanged_samples=params.unchanged_samples,
            bootstrap=params.bootstrap,
            removed_share=params.removed_share,
            seed=params.seed,
        )
        parts.append(found.select(pl.lit(name).alias("choice"), pl.all()))
        bar.update(1)
tables.write(pl.concat(parts), snakemake.output[0], tables.SENSITIVITY_JOB, **provenance)
