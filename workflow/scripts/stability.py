import polars as pl

from job import progress_bar, start
from sft_interactions import tables
from sft_interactions.analysis import stability
from sft_interactions.analysis.dynamics import add_generalizability
from sft_interactions.analysis.salience import RULES, read_salient
from sft_interactions.analysis.selection import Selector
from sft_interactions.extraction.interactions import to_values
from sft_interactions.parallel import Workers

provenance = start(snakemake)
params = snakemake.params
settings, steps, salience = params.stability, params.steps, params.salience
noise_scale, tie_break = params.extraction["noise_scale"], params.extraction["tie_break"]
# The mean is over all samples, also those that are not extracted again.
read_samples = None if noise_scale == "mean" else settings["samples"]
values, errors = {}, {}
for step, path in zip(steps, snakemake.input.log_odds, strict=True):
    log_odds = tables.scan(path, tables.LOG_ODDS)
    if read_samples is not None:
        first = log_odds.select(pl.col("sample_id").unique().sort().head(read_samples))
        log_odds = log_odds.join(first, on="sample_id", how="semi")
    samples, values[step] = to_values(log_odds.collect(engine="streaming"), path)
    errors[step] = float(tables.read_metadata(path)["log_odds_error_rms"])

needs_shares = RULES[salience["rule"]].starts_from is not None
checked = stability.perturbations(settings["noise"], settings["tie_breaks"], tie_break)
compared = len(steps) * (1 + len(checked))
drawn = 1 + settings["draws"] * (len(steps) - 1)
n_samples = min(settings["samples"], len(samples))
total = n_samples * (compared + drawn)
with progress_bar(snakemake, total, "extraction") as bar, Workers(snakemake.threads) as workers:
    selector = None
    if needs_shares:
        selector = Selector(settings["selection"], salience, params.seed, noise_scale, workers.map)
    common = {
        "noise_ratio": params.extraction["noise_ratio"],
        "noise_scale": noise_scale,
        "n_samples": n_samples,
        "add_shares": selector,
        "seed": params.seed,
        "errors": errors,
        "progress": bar.update,
        "mapped": workers.map,
    }
    measured = stability.measure(values, samples, checked, salience, tie_break=tie_break, **common)
    unchanged_run = stability.UnchangedRun(
        values[steps[0]],
        samples,
        steps,
        stability.noise_perturbation(settings["churn_noise"], tie_break),
        draws=settings["draws"],
        **common,
    )
    classes = unchanged_run.classify(
        salience, params.optima["reading"], params.optima["l1_tolerance"]
    )
tables.write(measured, snakemake.output.stability, tables.STABILITY, **provenance)
interactions, solve = unchanged_run.to_tables()
tables.write(
    interactions,
    snakemake.output.unchanged_interactions,
    tables.UNCHANGED_INTERACTIONS,
    **provenance,
)
tables.write(solve, snakemake.output.unchanged_solve, tables.UNCHANGED_SOLVE, **provenance)

paths = snakemake.input.reference
reference = read_salient(*paths, salience) if paths else None
unchanged = [
    add_generalizability(rows, reference, params.n_players).with_columns(draw=pl.lit(draw))
    for draw, rows in enumerate(classes)
]
tables.write(pl.concat(unchanged), snakemake.output.unchanged, tables.UNCHANGED, **provenance)
