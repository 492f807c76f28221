from job import start
from sft_interactions import tables
from sft_interactions.analysis.sensitivity import vary_salience

start(snakemake)


def checkpoint(interactions_path, solve_path):
    return (
        tables.scan(interactions_path, tables.INTERACTIONS),
        tables.read(solve_path, tables.SOLVE),
    )


files = zip(
    snakemake.params.steps, snakemake.input.interactions, snakemake.input.solve, strict=True
)
table = vary_salience(
    {step: checkpoint(*paths) for step, *paths in files},
    checkpoint(*snakemake.input.reference) if snakemake.input.reference else None,
    snakemake.params.choices,
    snakemake.params.n_players,
)
tables.write_report_table(table, snakemake.output.csv, snakemake.output.md)
