import logging
from pathlib import Path

from job import start
from sft_interactions.models.adapters import adds_nothing, names_of
from sft_interactions.models.checkpoint_files import (
    base_named_otherwise,
    check_checkpoint,
    check_tokenizer,
)
from sft_interactions.models.loading import check_fit

start(snakemake)
run, model, base = snakemake.wildcards.run, snakemake.params.model, Path(snakemake.input.model)
folder = Path(snakemake.output.checkpoints)
folder.mkdir(parents=True, exist_ok=True)
source = model["source"].partition(":")[2].partition("@")[0]
names = names_of(base, [source, snakemake.wildcards.run.partition("-")[0]])
for step, checkpoint in snakemake.params.checkpoints.items():
    target = base if checkpoint == "base" else Path(checkpoint)
    if checkpoint != "base":
        try:
            kind = check_checkpoint(target, base)
            check_tokenizer(target, base, compare_template=model["template"] == "chat")
            check_fit(base, target)
        except ValueError as error:
            raise ValueError(f"runs.{run}.checkpoints.{step}: {error}") from error
        if kind == "adapter":
            other = base_named_otherwise(target, names)
            if other:
                logging.warning(
                    "runs.%s.checkpoints.%s: the adapter was trained on %s, and is added to %s; see that "
                    "they are the same model",
                    run,
                    step,
                    other,
                    source,
                )
            if int(step) > 0 and adds_nothing(target):
                logging.warning(
                    "runs.%s.checkpoints.%s: the adapter leaves the model as it is, all of it is zero",
                    run,
                    step,
                )
    (folder / f"step-{step}").symlink_to(target.resolve(), target_is_directory=True)
