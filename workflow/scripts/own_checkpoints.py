from pathlib import Path

from job import start
from sft_interactions.files import link_as_given
from sft_interactions.models.own_checkpoints import check_own_checkpoints

start(snakemake)
run, model, base = snakemake.wildcards.run, snakemake.params.model, Path(snakemake.input.model)
folders = {int(step): Path(folder) for step, folder in snakemake.params.checkpoints.items()}
check_own_checkpoints(
    {step: folder for step, folder in folders.items() if str(folder) != "base"},
    base,
    where=f"runs.{run}.checkpoints",
    model_names=[model["source"].partition(":")[2].partition("@")[0], base.name],
    compare_template=model["template"] == "chat",
)
target = Path(snakemake.output.checkpoints)
target.mkdir(parents=True, exist_ok=True)
for step, folder in folders.items():
    link_as_given(target / f"step-{step}", base if str(folder) == "base" else folder)
