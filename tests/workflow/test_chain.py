"""A table of another fine-tuning, with the same prompts, run and step, goes into nothing that is made of it."""

import copy
import re
import shutil
from dataclasses import dataclass, field

import pytest
from tiny_study import snakemake

from sft_interactions.config import resolve
from sft_interactions.origin import check_inputs, check_page, check_sources
from sft_interactions.verdict_table import read as read_verdict

# Jobs that read them check them; the rest of tables/ and of figures/ is for people, and read by no job.
CHECKED = ("*.parquet", "stages.json", "figures/*.svg", "verdict.md", "tables/verdict.csv")


@dataclass
class Job:
    """A job of a finished study, its inputs by their places below the folder of the study."""

    rule: str
    inputs: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def other(study, tmp_path_factory):
    """The results of the study with another seed of its fine-tunings."""
    folder, config = study
    copied = shutil.copytree(folder, tmp_path_factory.mktemp("other") / "study", symlinks=True)
    config = copy.deepcopy(config)
    for run in config["runs"].values():
        run["seed"] = 2
    done = snakemake(copied, config, "all", "report")
    assert done.returncode == 0, done.stdout[-5000:]
    return copied / "results"


@pytest.fixture(scope="module")
def jobs(study):
    """All jobs of the study and of its page, by log."""
    folder, config = study
    done = snakemake(folder, config, "all", "report", "--detailed-summary")
    assert done.returncode == 0, done.stdout[-5000:]
    found = {}
    for line in done.stdout.splitlines():
        cells = line.split("\t")
        if len(cells) == 8 and cells[0] != "output_file":
            found[cells[3]] = Job(cells[2], cells[4].split(","))
    return list(found.values())


def foreign_tables(results, other):
    """Places of the tables that are not the same in the other study."""
    places = {path.relative_to(results) for pattern in CHECKED for path in results.rglob(pattern)}
    places = {place for place in places if "store" not in place.parts}
    return [
        place
        for place in sorted(places)
        if (results / place).read_bytes() != (other / place).read_bytes()
    ]


def begin(job, folder, config):
    """What a job does before it reads its inputs."""
    files = [folder / path for path in job.inputs]
    results = folder / "results"
    check_inputs(files, results)
    assert check_sources(files, results, runs=config["runs"]) == []
    if job.rule == "report":
        names = ("metrics.parquet", "dynamics.parquet", "stages.json")
        assert check_page(
            results / "verdict.md", [path for path in files if path.name in names], results
        )
        read_verdict(results / "tables" / "verdict.csv", results / "verdict.md")


def test_a_table_of_another_fine_tuning_is_refused_by_every_job_that_reads_it(
    own_study, other, jobs, capsys
):
    folder, config = own_study
    results, config = folder / "results", resolve(config)
    for job in jobs:
        begin(job, folder, config)
    n_tables = n_readers = 0
    silent = []
    for place in foreign_tables(results, other):
        kept = (results / place).read_bytes()
        shutil.copyfile(other / place, results / place)
        readers = [job for job in jobs if f"results/{place.as_posix()}" in job.inputs]
        for job in readers:
            try:
                begin(job, folder, config)
                silent.append((str(place), job.rule))
            except ValueError as error:
                assert re.match(rf"{folder}\S+: .*; .*", str(error)), error
                assert "\n" not in str(error)
        n_tables += bool(readers)
        n_readers += len(readers)
        (results / place).write_bytes(kept)
    with capsys.disabled():
        print(f"\n{n_tables} tables, {n_readers} jobs that read one, {len(silent)} that take it")
    assert silent == []
    assert n_tables > 50
