from pathlib import Path

from job import start
from sft_interactions.analysis.faithfulness import read_log_odds
from sft_interactions.analysis.samples import best_step
from sft_interactions.figures import faithfulness as fig5
from sft_interactions.figures.style import save

start(snakemake)
chosen = snakemake.params.sample
runs = []
for label, stages in zip(snakemake.params.labels, snakemake.input.stages, strict=True):
    folder = Path(stages).parent
    step = best_step(folder)
    log_odds = read_log_odds(folder, step, snakemake.params.salience)
    # The chosen sample is one of the first run's data set; runs on others show their first one.
    shown = chosen if chosen in log_odds.samples else log_odds.samples[0]
    runs.append(fig5.Faithfulness(label, step, log_odds, shown))
save(fig5.draw(runs, noise_ratio=snakemake.params.noise_ratio), snakemake.output)
