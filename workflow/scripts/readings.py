import polars as pl

from job import start
from sft_interactions import tables
from sft_interactions.analysis.choices import CERTAIN, JOINT, SINGLE
from sft_interactions.analysis.dynamics import add_generalizability, classify
from sft_interactions.analysis.readings import only_certain
from sft_interactions.analysis.salience import read_salient, select_salient, without_shares

provenance = start(snakemake)
params, files = snakemake.params, snakemake.input
joint = tables.read(files.joint, tables.JOINT)
salient = {SINGLE: {}, CERTAIN: {}, JOINT: {}}
for step, interactions, solve, ranges in zip(
    params.steps, files.interactions, files.solve, files.ranges, strict=True
):
    salient[SINGLE][step] = read_salient(interactions, solve, params.salience)
    salient[CERTAIN][step] = only_certain(salient[SINGLE][step], tables.read(ranges, tables.RANGES))
    salient[JOINT][step] = select_salient(
        joint.filter(step=step).drop("step"),
        tables.read(solve, tables.SOLVE),
        **without_shares(params.salience),
    )
reference = read_salient(*files.reference, params.salience) if files.reference else None
readings = [
    add_generalizability(classify(of_steps), reference, params.n_players).with_columns(
        reading=pl.lit(name)
    )
    for name, of_steps in salient.items()
    if name != params.reading
]
tables.write(pl.concat(readings), snakemake.output[0], tables.READINGS, **provenance)
