import polars as pl

from job import progress_bar, start
from sft_interactions import tables
from sft_interactions.analysis.choices import Choice
from sft_interactions.analysis.dynamics import add_generalizability
from sft_interactions.analysis.sensitivity import classify_run, count_extractions, extract_run
from sft_interactions.extraction.interactions import to_values
from sft_interactions.parallel import Workers

provenance = start(snakemake)
params = snakemake.params
choice = Choice(**params.choice)
values, errors, samples = {}, {}, []
for step, path in zip(params.steps, snakemake.input, strict=True):
    samples, values[step] = to_values(tables.read(path, tables.LOG_ODDS), path)
    errors[step] = float(tables.read_metadata(path)["log_odds_error_rms"])
total = count_extractions(len(samples), len(values), params.stability)
with progress_bar(snakemake, total, "extraction") as bar, Workers(snakemake.threads) as workers:
    run = extract_run(
        choice,
        values,
        samples,
        stability=params.stability,
        seed=params.seed,
        gap_tolerance=params.gap_tolerance,
        tolerance=params.l1_tolerance,
        errors=errors,
        selection=params.stability.get("selection"),
        progress=bar.update,
        mapped=workers.map,
    )
    rows, draws = classify_run(run, choice, params.l1_tolerance)
# Which of them the reference model has too is told where the extraction of its run is there as well.
dynamics = add_generalizability(rows, None, run.n_players)
unchanged = [
    add_generalizability(classes, None, run.n_players).with_columns(draw=pl.lit(draw))
    for draw, classes in enumerate(draws)
]
tables.write(dynamics, snakemake.output.dynamics, tables.DYNAMICS, **provenance)
tables.write(pl.concat(unchanged), snakemake.output.unchanged, tables.UNCHANGED, **provenance)
