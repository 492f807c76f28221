from job import progress_bar, start
from sft_interactions import tables
from sft_interactions.extraction.interactions import check_certificates, from_extraction, to_values
from sft_interactions.extraction.program import extract
from sft_interactions.parallel import Workers

provenance = start(snakemake)
settings = snakemake.params.extraction
log_odds = tables.read(snakemake.input[0], tables.LOG_ODDS)
samples, values = to_values(log_odds, snakemake.input[0])
with progress_bar(snakemake, len(samples), "sample") as bar, Workers(snakemake.threads) as workers:
    solved = extract(
        values,
        noise_ratio=settings["noise_ratio"],
        noise_scale=settings["noise_scale"],
        tie_break=settings["tie_break"],
        gap_tolerance=settings["gap_tolerance"],
        progress=bar.update,
        mapped=workers.map,
    )
interactions, solve = from_extraction(samples, values, solved)
check_certificates(
    solve,
    settings["gap_tolerance"],
    f"{snakemake.wildcards.run}, step {snakemake.wildcards.step}",
)
tables.write(interactions, snakemake.output.interactions, tables.INTERACTIONS, **provenance)
tables.write(solve, snakemake.output.solve, tables.SOLVE, **provenance)
