import polars as pl

from job import start
from sft_interactions import tables
from sft_interactions.analysis.choices import CERTAIN, JOINT, SINGLE
from sft_interactions.analysis.dynamics import add_generalizability, classify
from sft_interactions.analysis.readings import only_certain
from sft_interactions.analysis.salience import read_salient, select_salient, without_shares

provenance = start(snakemake)
params, files = snakemake.params, snakemake.input


def read_checkpoint(interactions, solve, ranges, joint):
    """Salient interactions of a checkpoint by each reading."""
    single = read_salient(interactions, solve, params.salience)
    return {
        SINGLE: single,
        CERTAIN: only_certain(single, tables.read(ranges, tables.RANGES)),
        JOINT: select_salient(
            joint, tables.read(solve, tables.SOLVE), **without_shares(params.salience)
        ),
    }


joint = tables.read(files.joint, tables.JOINT)
salient = {
    step: read_checkpoint(*paths, joint.filter(step=step).drop("step"))
    for step, *paths in zip(
        params.steps, files.interactions, files.solve, files.ranges, strict=True
    )
}
reference = {}
if files.reference:
    *paths, joint_path = files.reference
    reference = read_checkpoint(*paths, tables.read(joint_path, tables.INTERACTIONS))
readings = [
    add_generalizability(
        classify({step: found[name] for step, found in salient.items()}),
        reference.get(name),
        params.n_players,
    ).with_columns(reading=pl.lit(name))
    for name in (SINGLE, CERTAIN, JOINT)
    if name != params.reading
]
tables.write(pl.concat(readings), snakemake.output[0], tables.READINGS, **provenance)
