from job import progress_bar, start
from sft_interactions import tables
from sft_interactions.analysis.ranges import add_ranges
from sft_interactions.extraction.interactions import to_values
from sft_interactions.parallel import Workers

provenance = start(snakemake)
files, params = snakemake.input, snakemake.params
samples, values = to_values(tables.read(files.log_odds, tables.LOG_ODDS), files.log_odds)
with progress_bar(snakemake, len(samples), "sample") as bar, Workers(snakemake.threads) as workers:
    ranges = add_ranges(
        tables.read(files.interactions, tables.INTERACTIONS),
        tables.read(files.solve, tables.SOLVE),
        values,
        samples,
        params.salience,
        tolerance=params.optima["l1_tolerance"],
        progress=bar.update,
        mapped=workers.map,
    )
tables.write(ranges, snakemake.output[0], tables.RANGES, **provenance)
