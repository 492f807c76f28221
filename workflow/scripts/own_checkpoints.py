from pathlib import Path

from job import start

start(snakemake)
folder = Path(snakemake.output.checkpoints)
folder.mkdir(parents=True, exist_ok=True)
for step, checkpoint in snakemake.params.checkpoints.items():
    target = snakemake.input.model if checkpoint == "base" else checkpoint
    (folder / f"step-{step}").symlink_to(Path(target).resolve(), target_is_directory=True)
