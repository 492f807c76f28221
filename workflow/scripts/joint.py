import polars as pl

from job import progress_bar, start
from sft_interactions import tables
from sft_interactions.extraction.interactions import from_extraction, to_extraction, to_values
from sft_interactions.extraction.joint import extract_joint
from sft_interactions.parallel import Workers

provenance = start(snakemake)
files = snakemake.input
values, solved = [], []
for log_odds, interactions, solve in zip(
    files.log_odds, files.interactions, files.solve, strict=True
):
    samples, of_step = to_values(tables.read(log_odds, tables.LOG_ODDS), log_odds)
    values.append(of_step)
    solved.append(
        to_extraction(
            samples,
            tables.read(interactions, tables.INTERACTIONS),
            tables.read(solve, tables.SOLVE),
        )
    )
with progress_bar(snakemake, len(samples), "sample") as bar, Workers(snakemake.threads) as workers:
    joint = extract_joint(
        values,
        solved,
        tie_break=snakemake.params.tie_break,
        tolerance=snakemake.params.optima["l1_tolerance"],
        progress=bar.update,
        mapped=workers.map,
    )
found = [
    from_extraction(samples, of_step, checkpoint)[0].with_columns(step=pl.lit(step))
    for step, of_step, checkpoint in zip(
        snakemake.params.steps, values, joint.checkpoints, strict=True
    )
]
tables.write(pl.concat(found), snakemake.output.joint, tables.JOINT, **provenance)
change = pl.DataFrame(
    {
        "sample_id": samples,
        "change": joint.change,
        "change_lower_bound": joint.change_lower_bound,
        "single_change": joint.given_change,
    }
)
tables.write(change, snakemake.output.change, tables.JOINT_CHANGE, **provenance)
