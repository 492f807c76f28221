import polars as pl

from job import progress_bar, start
from sft_interactions import tables
from sft_interactions.analysis import stability
from sft_interactions.analysis.dynamics import add_generalizability
from sft_interactions.analysis.salience import read_salient
from sft_interactions.extraction.interactions import to_values

provenance = start(snakemake)
settings = snakemake.params.stability
salience = snakemake.params.salience
steps = snakemake.params.steps
common = {
    "noise_ratio": snakemake.params.extraction["noise_ratio"],
    "seed": snakemake.params.seed,
}
values, errors = {}, {}
for step, path in zip(steps, snakemake.input.log_odds, strict=True):
    log_odds = tables.scan(path, tables.LOG_ODDS)
    first = log_odds.select(pl.col("sample_id").unique().sort().head(settings["samples"]))
    kept = log_odds.join(first, on="sample_id", how="semi").collect(engine="streaming")
    samples, values[step] = to_values(kept, path)
    errors[step] = float(tables.read_metadata(path)["log_odds_error_rms"])

checked = stability.perturbations(settings["noise"], settings["tie_breaks"])
compared = len(steps) * (1 + len(checked))
drawn = 1 + settings["draws"] * (len(steps) - 1)
with progress_bar(snakemake, len(samples) * (compared + drawn), "extraction") as bar:
    common["progress"] = bar.update
    measured = stability.measure(values, samples, checked, salience, errors=errors, **common)
    unchanged_run = stability.UnchangedRun(
        values[steps[0]],
        samples,
        steps,
        stability.noise_perturbation(settings["churn_noise"]),
        draws=settings["draws"],
        errors=errors,
        **common,
    )
tables.write(measured, snakemake.output.stability, tables.STABILITY, **provenance)

draws = unchanged_run.classify(salience)
reference = (
    read_salient(*snakemake.input.reference, salience) if snakemake.input.reference else None
)
unchanged = [
    add_generalizability(rows, reference, snakemake.params.n_players).with_columns(
        draw=pl.lit(draw)
    )
    for draw, rows in enumerate(draws)
]
tables.write(pl.concat(unchanged), snakemake.output.unchanged, tables.UNCHANGED, **provenance)
