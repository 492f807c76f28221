from job import start
from sft_interactions import tables
from sft_interactions.extraction import extract
from sft_interactions.interactions import from_extraction, to_values

provenance = start(snakemake)
outputs = tables.read(snakemake.input[0], tables.OUTPUTS)
samples, values = to_values(outputs, snakemake.input[0])
solved = extract(values, noise_ratio=snakemake.params.extraction["noise_ratio"])
interactions, solve = from_extraction(samples, values, solved)
tables.write(interactions, snakemake.output.interactions, tables.INTERACTIONS, **provenance)
tables.write(solve, snakemake.output.solve, tables.SOLVE, **provenance)
