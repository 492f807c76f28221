from pathlib import Path

from job import start
from sft_interactions import tables
from sft_interactions.analysis.salience import RULES, select_salient
from sft_interactions.analysis.samples import best_step
from sft_interactions.analysis.sparsity import n_possible, sorted_strengths
from sft_interactions.figures import sparsity as fig6
from sft_interactions.figures.style import save

start(snakemake)
salience, n_players = snakemake.params.salience, snakemake.params.n_players
runs = []
for label, stages in zip(snakemake.params.labels, snakemake.input.stages, strict=True):
    folder = Path(stages).parent
    step = best_step(folder)
    stem = folder / "interactions" / f"step-{step}"
    interactions = tables.read(stem.with_suffix(".parquet"), tables.INTERACTIONS)
    solve = tables.read(stem.with_suffix(".solve.parquet"), tables.SOLVE)
    strengths = list(sorted_strengths(interactions).values())
    n_salient = len(select_salient(interactions, solve, **salience)) / len(solve)
    runs.append(fig6.Sparsity(label, step, strengths, n_salient, n_possible(n_players)))
is_share = RULES[salience["rule"]].is_share_of_largest
threshold = salience["threshold"] if is_share else None
save(fig6.draw(runs, n_players=n_players, threshold=threshold), snakemake.output)
