from job import start
from sft_interactions.analysis.runs import read_runs
from sft_interactions.figures import carriers as fig4
from sft_interactions.figures.style import save

start(snakemake)
runs = read_runs(snakemake.params.labels, snakemake.input.metrics, snakemake.input.stages)
save(fig4.draw(runs, level=snakemake.params.level), snakemake.output)
