from job import start
from sft_interactions.analysis.runs import read_runs
from sft_interactions.figures import evolution as fig2
from sft_interactions.figures import panels
from sft_interactions.figures.style import save

start(snakemake)
runs = read_runs(snakemake.params.labels, snakemake.input.metrics, snakemake.input.stages)
draw = fig2.draw if runs else panels.draw_no_runs
save(draw(runs, level=snakemake.params.level), snakemake.output)
