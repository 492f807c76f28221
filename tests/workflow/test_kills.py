"""A run that was stopped in the middle, once in each way; `tests/kills/run.py` tries many moments."""

import random
import shutil

import pytest
from kills import faults
from kills import study as parts
from kills.run import DISK, Bench, impossible_kinds

# Kind of fault to a stage whose jobs take seconds, or where it matters.
CASES = {
    "SIGKILL of all": "fine-tuning",
    "SIGKILL of a job": "extraction",
    "SIGKILL of Snakemake": "metrics, findings",
    "SIGTERM of all": "tables",
    "SIGTERM of Snakemake": "verdict",
    "SIGINT of all": "extraction",
    "SIGINT of Snakemake": "metrics, findings",
    "memory of the machine": "tables",
    "memory of a process": "inference",
    "disk": "extraction",
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Where a study lies on a small disk, if one can be mounted."""
    folder = tmp_path_factory.mktemp("kills") / "study"
    with faults.small_disk(folder, DISK) as is_small:
        yield folder, is_small


@pytest.fixture(scope="module")
def bench(study, place):
    folder, _ = place
    shutil.copytree(study[0], folder, symlinks=True, dirs_exist_ok=True)
    jobs = parts.read_jobs(folder)
    kept = shutil.copytree(folder, folder.with_name("kept"), symlinks=True)
    return Bench(
        folder, kept, jobs, parts.contents(folder), cores=1, longest_path=2, phases=("begin",)
    )


def test_every_kind_is_tried():
    assert set(CASES) == set(faults.KINDS)


@pytest.mark.parametrize("kind", CASES)
def test_the_same_command_finishes_what_was_stopped(bench, place, kind):
    if reason := impossible_kinds(disk_is_small=place[1]).get(kind):
        pytest.skip(reason)
    row = bench.try_fault(1, kind, CASES[kind], random.Random(kind))
    if row is None:
        pytest.skip("it hit nothing, on a machine as fast as this one")
    assert row.outcome == "the same files", row
