from job import start
from sft_interactions import tables
from sft_interactions.analysis.sensitivity import gather_choices

provenance = start(snakemake)
parts = [tables.read(path, tables.SENSITIVITY_JOB) for path in snakemake.input]
findings = gather_choices(parts, snakemake.params.choices)
tables.write(findings, snakemake.output[0], tables.SENSITIVITY, **provenance)
