from pathlib import Path

from job import start
from sft_interactions.analysis.samples import best_step, read_logical_model, read_prompt
from sft_interactions.figures import comparison as fig9
from sft_interactions.figures.style import save

start(snakemake)
params = snakemake.params
folders = [Path(stages).parent for stages in snakemake.input.stages]
prompt = read_prompt(folders[0], snakemake.input.analysis, params.sample)
steps = [best_step(folder) for folder in folders]
if len(folders) == 1:  # one LLM alone is compared with itself before SFT
    folders, steps = folders * 2, [0, *steps]
models = []
for label, folder, step in zip(params.labels, folders, steps, strict=True):
    title = f"{label}, t = {step}" if step else f"{label}, before SFT"
    models.append(read_logical_model(folder, title, step, prompt.sample_id, params.salience))
save(fig9.draw(models, prompt), snakemake.output)
