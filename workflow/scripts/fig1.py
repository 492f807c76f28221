from pathlib import Path

from job import start
from sft_interactions import tables
from sft_interactions.analysis.runs import read_runs
from sft_interactions.analysis.samples import best_step, read_logical_model, read_prompt
from sft_interactions.figures import interactions as fig1
from sft_interactions.figures.style import save

start(snakemake)
folder = Path(snakemake.input.stages).parent
salience = snakemake.params.salience
(run,) = read_runs([snakemake.params.label], [snakemake.input.metrics], [snakemake.input.stages])
prompt = read_prompt(folder, snakemake.input.analysis, snakemake.params.sample)
step = best_step(folder)
title = f"{run.label}, t = {step}"
model = read_logical_model(folder, title, step, prompt.sample_id, salience)
dynamics = tables.read(snakemake.input.dynamics, tables.DYNAMICS)
save(fig1.draw(run, dynamics, model, prompt), snakemake.output)
