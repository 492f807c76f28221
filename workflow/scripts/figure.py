from job import start
from sft_interactions import tables
from sft_interactions.analysis.faithfulness import read_faithfulness
from sft_interactions.analysis.runs import (
    best_checkpoints,
    checkpoints_by_run,
    compared_checkpoints,
    read_runs,
)
from sft_interactions.analysis.salience import RULES
from sft_interactions.analysis.samples import read_logical_model, read_prompt
from sft_interactions.analysis.sparsity import read_sparsity
from sft_interactions.figures import (
    carriers,
    comparison,
    evolution,
    faithfulness,
    interactions,
    quality,
    sparsity,
    survival,
)
from sft_interactions.figures.catalogue import FIGURES
from sft_interactions.figures.style import save

provenance = start(snakemake)
files, params = snakemake.input, snakemake.params


def checkpoints(**paths):
    return checkpoints_by_run(params.labels, params.steps, **paths)


def checkpoints_with_log_odds():
    return checkpoints(log_odds=files.log_odds, interactions=files.interactions, solve=files.solve)


match FIGURES[snakemake.rule].subject:
    case "interactions":
        (run,) = read_runs(params.labels, files.metrics, files.stages)
        dynamics = tables.read(files.dynamics, tables.DYNAMICS)
        prompt = read_prompt(files.analysis, files.prompts, files.players, params.sample)
        (best,) = best_checkpoints(checkpoints_with_log_odds(), files.stages)
        model = read_logical_model(best, prompt.sample_id, params.salience)
        figure = interactions.draw(run, dynamics, model, prompt)
    case "evolution":
        courses = iter(files.training)
        training = [next(courses) if tuned else None for tuned in params.tuned]
        runs = read_runs(params.labels, files.metrics, files.stages, training)
        figure = evolution.draw(runs, level=params.level)
    case "quality":
        runs = read_runs(params.labels, files.metrics, files.stages)
        figure = quality.draw(runs, level=params.level)
    case "carriers":
        runs = read_runs(params.labels, files.metrics, files.stages)
        figure = carriers.draw(runs, level=params.level)
    case "faithfulness":
        best = best_checkpoints(checkpoints_with_log_odds(), files.stages)
        shown = [read_faithfulness(one, params.sample, params.salience) for one in best]
        noise_ratio = params.noise_ratio if params.noise_scale == "sample" else None
        figure = faithfulness.draw(shown, noise_ratio=noise_ratio)
    case "sparsity":
        every = checkpoints(interactions=files.interactions, solve=files.solve)
        best = best_checkpoints(every, files.stages)
        shown = [read_sparsity(one, params.n_players, params.salience) for one in best]
        is_share = RULES[params.salience["rule"]].is_share_of_largest
        threshold = params.salience["threshold"] if is_share else None
        figure = sparsity.draw(shown, n_players=params.n_players, threshold=threshold)
    case "comparison":
        sample, prompts = params.sample, []
        for paths in zip(files.prompts, files.players, strict=True):
            prompts.append(read_prompt(files.analysis, *paths, sample))
            sample = prompts[0].sample_id
        compared = compared_checkpoints(checkpoints_with_log_odds(), files.stages)
        models = [read_logical_model(one, sample, params.salience) for one in compared]
        figure = comparison.draw(models, prompts)
    case "survival":
        rows = [tables.read(path, tables.SENSITIVITY) for path in files.sensitivity]
        figure = survival.draw(dict(zip(params.labels, rows, strict=True)), level=params.level)
    case subject:
        raise ValueError(f"workflow/scripts/figure.py has no case for {subject}; add one")
save(
    figure,
    snakemake.output,
    results=provenance["results"],
    made_of=provenance["made_of"],
)
