from pathlib import Path

from job import start
from sft_interactions.files import link_as_given
from sft_interactions.models.checkpoint_files import files_of

start(snakemake)
base = Path(snakemake.input.model)
if snakemake.params.folder == "base":
    folder = base
else:
    # Here, since it takes seconds to load the libraries of models, and no model is looked at above.
    from sft_interactions.models.own_checkpoints import check_own_checkpoints

    folder, model = Path(snakemake.params.folder), snakemake.params.model
    check_own_checkpoints(
        {int(snakemake.wildcards.step): folder},
        base,
        where=snakemake.params.block,
        model_names=[model["source"].partition(":")[2].partition("@")[0], base.name],
        compare_template=model["template"] == "chat",
    )
target = Path(snakemake.output[0])
target.mkdir(parents=True, exist_ok=True)
for file in files_of(folder):
    link_as_given(target / file.name, file)
