"""A table of another fine-tuning with the same prompts, run and step goes into nothing that reads it."""

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
def other_study(study, tmp_path_factory):
    """The study with another seed of one fine-tuning, and its page: folder and config."""
    folder, config = study
    copied = shutil.copytree(folder, tmp_path_factory.mktemp("other") / "study", symlinks=True)
    config = copy.deepcopy(config)
    config["runs"]["llama-tiny"]["seed"] = 2  # the other run has it for its reference
    config["inference"] = {"checkpoints_per_job": 3}  # fewer jobs, the same tables
    done = snakemake(copied, config, "all", "report")
    assert done.returncode == 0, done.stdout[-5000:]
    return copied, config


@pytest.fixture(scope="module")
def other(other_study):
    """The results of the other study."""
    return other_study[0] / "results"


@pytest.fixture(scope="module")
def jobs(other_study):
    """All jobs of a study and of its page, by log; of what is not made Snakemake tells no inputs."""
    folder, config = other_study
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
    """What a job does before it reads its inputs; the message of what stops it."""
    files = [folder / path for path in job.inputs]
    results = folder / "results"
    try:
        check_inputs(files, results)
        assert check_sources(files, results, runs=config["runs"]) == []
        if job.rule == "report":
            names = ("metrics.parquet", "dynamics.parquet", "stages.json")
            sources = [path for path in files if path.name in names]
            assert check_page(results / "verdict.md", sources, results)
            read_verdict(results / "tables" / "verdict.csv", results / "verdict.md")
    except ValueError as error:
        return str(error)
    return None


def test_a_table_of_another_fine_tuning_is_refused_by_every_job_that_reads_it(
    own_study, other, jobs, capsys, monkeypatch
):
    folder, config = own_study
    monkeypatch.chdir(folder)  # the config names the data by a relative path
    results, config = folder / "results", resolve(config)
    assert [said for job in jobs if (said := begin(job, folder, config))] == []
    n_tables = n_readers = 0
    silent = []
    for place in foreign_tables(results, other):
        kept = (results / place).read_bytes()
        shutil.copyfile(other / place, results / place)
        readers = [job for job in jobs if f"results/{place.as_posix()}" in job.inputs]
        for job in readers:
            said = begin(job, folder, config)
            if said is None:
                silent.append((str(place), job.rule))
            else:
                assert re.fullmatch(rf"{folder}\S+: .*; .*", said), said
        n_tables += bool(readers)
        n_readers += len(readers)
        (results / place).write_bytes(kept)
    with capsys.disabled():
        print(f"\n{n_tables} tables, {n_readers} jobs that read one, {len(silent)} that take it")
    assert silent == []
    assert n_tables > 50


@pytest.mark.parametrize(
    ("place", "target", "rule"),
    [
        ("log_odds/step-3.parquet", "interactions/step-3.parquet", "interactions"),
        ("interactions/step-3.solve.parquet", "ranges/step-3.parquet", "ranges"),
        ("dynamics.parquet", "metrics.parquet", "metrics"),
        ("training.parquet", "stages.json", "stages"),
        ("checkpoints/step-3", "log_odds/step-3.parquet", "inference"),
    ],
)
def test_the_next_stage_stops_with_one_line(own_study, other, place, target, rule):
    folder, config = own_study
    run = "results/runs/llama-tiny"
    foreign = other.parent / run / place
    if foreign.is_dir():
        shutil.rmtree(folder / run / place)
        shutil.copytree(foreign, folder / run / place)
    else:
        shutil.copyfile(foreign, folder / run / place)
    before = (folder / run / target).read_bytes()
    done = snakemake(folder, config, f"{run}/{target}")
    assert done.returncode != 0
    lines = [line for line in done.stdout.splitlines() if f"{rule}: {run}/" in line]
    assert len(set(lines)) == 1, done.stdout[-3000:]
    assert (
        "so one of them is of another fine-tuning, study or config; make the first anew" in lines[0]
    )
    path = folder / run / target
    assert not path.exists() or path.read_bytes() == before
    # The command that the line names mends it.
    named = re.search(r"snakemake --cores 1 (--force \S+) and", lines[0])[1].split()
    assert snakemake(folder, config, *named).returncode == 0
    done = snakemake(folder, config, f"{run}/{target}")
    assert done.returncode == 0, done.stdout[-3000:]
    assert path.read_bytes() == before
