from job import start
from sft_interactions import tables
from sft_interactions.figures import survival
from sft_interactions.figures.style import save

start(snakemake)
frames = [tables.read(path, tables.SENSITIVITY) for path in snakemake.input.sensitivity]
runs = dict(zip(snakemake.params.labels, frames, strict=True))
save(survival.draw(runs, level=snakemake.params.level), snakemake.output)
