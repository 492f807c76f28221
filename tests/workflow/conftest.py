"""A finished study that the tests of workflows share."""

import copy
import fcntl
import json
import os
import shutil
from pathlib import Path

import pytest
from tiny_study import CONFIG, HF_TOKEN, ROWS, snakemake


@pytest.fixture(scope="session")
def study(model_folders, tmp_path_factory):
    """A finished study: its folder and its config.

    Tests that run side by side in several processes have it made once, if TINY_STUDY names a folder for it.
    """
    place = Path(os.environ.get("TINY_STUDY") or tmp_path_factory.mktemp("made"))
    with (place / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (place / "finished").exists():
            _finish_study(place, model_folders)
    # Each process has its own, since tests leave traces in it.
    folder = tmp_path_factory.mktemp("study") / "study"
    shutil.copytree(place / "study", folder, symlinks=True)
    return folder, json.loads((place / "finished").read_text())


def _finish_study(place, model_folders):
    folder = place / "study"
    for left_over in (folder, place / "models"):
        shutil.rmtree(left_over, ignore_errors=True)
    folder.mkdir()
    # More than Snakemake compares by content of itself, 1 MB.
    rows = [{**row, "note": "x" * 100_000} for row in ROWS]
    (folder / "lines.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = copy.deepcopy(CONFIG)
    for name, model in config["models"].items():
        kept = shutil.copytree(model_folders[name], place / "models" / name)
        model["source"] = f"path:{kept}"
    with pytest.MonkeyPatch.context() as shell:
        shell.setenv("HF_TOKEN", HF_TOKEN)
        done = snakemake(folder, config)
    assert done.returncode == 0, done.stdout[-5000:]
    assert HF_TOKEN not in done.stdout
    (place / "finished").write_text(json.dumps(config))


@pytest.fixture
def own_study(study, tmp_path):
    """A copy of the study for a test that adds to it, and its config."""
    folder, config = study
    copied = shutil.copytree(folder, tmp_path / "study", symlinks=True)
    return copied, copy.deepcopy(config)
