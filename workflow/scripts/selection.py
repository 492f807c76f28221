from job import progress_bar, start
from sft_interactions import tables
from sft_interactions.analysis.selection import Selector
from sft_interactions.extraction.interactions import to_values
from sft_interactions.parallel import Workers

provenance = start(snakemake)
params, files = snakemake.params, snakemake.input
samples, values = to_values(tables.read(files.log_odds, tables.LOG_ODDS), files.log_odds)
total = len(samples) * params.selection["draws"]
with progress_bar(snakemake, total, "extraction") as bar, Workers(snakemake.threads) as workers:
    selector = Selector(
        params.selection, params.salience, params.seed, params.noise_scale, workers.map
    )
    shared = selector(
        tables.read(files.interactions, tables.INTERACTIONS),
        values,
        samples,
        error=float(tables.read_metadata(files.log_odds)["log_odds_error_rms"]),
        progress=bar.update,
    )
tables.write(shared, snakemake.output[0], tables.SELECTION, **provenance)
