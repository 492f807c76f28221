from job import start
from sft_interactions import report_table, tables
from sft_interactions.analysis.sensitivity import vary_salience

start(snakemake)
params, files = snakemake.params, snakemake.input


def open_checkpoint(interactions_path, solve_path):
    return (
        tables.scan(interactions_path, tables.INTERACTIONS),
        tables.read(solve_path, tables.SOLVE),
    )


checkpoints = {
    step: open_checkpoint(interactions, solve)
    for step, interactions, solve in zip(params.steps, files.interactions, files.solve, strict=True)
}
table = vary_salience(
    checkpoints,
    open_checkpoint(*files.reference) if files.reference else None,
    params.choices,
    params.n_players,
)
report_table.write(table, snakemake.output.csv, snakemake.output.md, **params.size)
