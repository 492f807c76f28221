import pytest
from sample_tables import BEST, SALIENCE, checkpoint, write_run

from sft_interactions import tables
from sft_interactions.analysis.samples import read_logical_model, read_prompt


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory):
    """Tables of a run of two samples."""
    root = tmp_path_factory.mktemp("run")
    write_run(root)
    return root


@pytest.fixture(scope="session")
def prompt(run_folder):
    names = ("analysis", "prompts", "players")
    return read_prompt(*(run_folder / f"{name}.parquet" for name in names), "s1")


@pytest.fixture(scope="session")
def model(run_folder):
    return read_logical_model(checkpoint(run_folder, BEST), "s1", SALIENCE)


@pytest.fixture(scope="session")
def dynamics(run_folder):
    return tables.read(run_folder / "dynamics.parquet", tables.DYNAMICS)
