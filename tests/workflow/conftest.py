"""A finished study that the tests of workflows share."""

import copy
import json
import shutil

import pytest
from tiny_study import CONFIG, HF_TOKEN, ROWS, snakemake


@pytest.fixture(scope="session")
def study(model_folders, tmp_path_factory):
    """A finished study: its folder and its config."""
    folder = tmp_path_factory.mktemp("study")
    # More than Snakemake compares by content of itself, 1 MB.
    rows = [{**row, "note": "x" * 100_000} for row in ROWS]
    (folder / "lines.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = copy.deepcopy(CONFIG)
    for name, model in config["models"].items():
        model["source"] = f"path:{model_folders[name]}"
    with pytest.MonkeyPatch.context() as shell:
        shell.setenv("HF_TOKEN", HF_TOKEN)
        done = snakemake(folder, config)
    assert done.returncode == 0, done.stdout[-5000:]
    assert HF_TOKEN not in done.stdout
    return folder, config


@pytest.fixture
def own_study(study, tmp_path):
    """A copy of the study for a test that adds to it, and its config."""
    folder, config = study
    copied = shutil.copytree(folder, tmp_path / "study", symlinks=True)
    return copied, copy.deepcopy(config)
