from pathlib import Path

from job import start
from sft_interactions.faithfulness import read_outputs
from sft_interactions.figures import fig5
from sft_interactions.figures.sample import best_step
from sft_interactions.figures.style import save

start(snakemake)
chosen = snakemake.params.sample
runs = []
for label, stages in zip(snakemake.params.labels, snakemake.input.stages, strict=True):
    folder = Path(stages).parent
    step = best_step(folder)
    outputs = read_outputs(folder, step, snakemake.params.salience)
    # The chosen sample is one of the first run's data set; runs on others show their first one.
    shown = chosen if chosen in outputs.samples else outputs.samples[0]
    runs.append(fig5.Faithfulness(label, step, outputs, shown))
save(fig5.draw(runs, noise_ratio=snakemake.params.noise_ratio), snakemake.output)
