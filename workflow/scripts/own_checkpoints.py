from pathlib import Path

from job import start
from sft_interactions.files import link_as_given
from sft_interactions.models.checkpoint_files import files_of
from sft_interactions.models.own_checkpoints import check_own_checkpoints

start(snakemake)
step, model = int(snakemake.wildcards.step), snakemake.params.model
base, given = Path(snakemake.input.model), snakemake.params.folder
check_own_checkpoints(
    {step: Path(given)} if given != "base" else {},
    base,
    where=snakemake.params.block,
    model_names=[model["source"].partition(":")[2].partition("@")[0], base.name],
    compare_template=model["template"] == "chat",
)
target = Path(snakemake.output[0])
target.mkdir(parents=True, exist_ok=True)
for file in files_of(base if given == "base" else given):
    link_as_given(target / file.name, file)
