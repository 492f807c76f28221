"""The installed package: what the wheel holds, and a script elsewhere that uses it. `make install`."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = """
import numpy as np
import sft_interactions as si
from sft_interactions.config import resolve, ConfigError
from sft_interactions.figures import effects
import polars as pl, sys

assert "INSTALLED" in si.__file__, si.__file__
found = si.extract(np.array([[0.0, 1.0, 1.0, 3.0]]), noise_ratio=0)
print(found.and_effects.round(9).tolist(), "snakemake" in sys.modules, "torch" in sys.modules)
rows = pl.DataFrame({"kind": ["and"], "words": [["a", "b"]], "effect": [1.0]})
effects.draw(rows, target="yes").savefig("plot.png")
try:
    resolve({"models": {}, "datasets": {}, "runs": {}, "play": {}})
except ConfigError as error:
    print("unknown key" in str(error))
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("INSTALLED")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target"]
    done = subprocess.run([*command, str(folder), str(ROOT)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


def dry_run_of_make(folder, python):
    """`make -n install` in a folder without an environment."""
    shutil.copy(ROOT / "Makefile", folder)
    (folder / "envs").mkdir(exist_ok=True)
    (folder / "envs" / "requirements.lock").touch()
    command = ["make", "--dry-run", "--directory", str(folder), "install", f"PYTHON={python}"]
    # Those of a `make test` around this.
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MAKE")}
    return subprocess.run(command, capture_output=True, text=True, env=environment)


@pytest.mark.parametrize("version", ["3.10", "3.12", None])
def test_make_stops_with_one_line_at_another_python(tmp_path, version):
    python = tmp_path / "python"
    if version:
        python.write_text(f"#!/bin/sh\necho {version}\n")
        python.chmod(0o755)
    done = dry_run_of_make(tmp_path, python)
    assert done.returncode
    (line,) = done.stderr.splitlines()
    is_what = version or "not there"
    assert f"Python 3.11 is needed, and {python} is {is_what}; give another one" in line
    assert "by PYTHON=python3.11." in line
    assert "venv" not in done.stdout


def test_make_takes_the_python_of_the_lock(tmp_path):
    done = dry_run_of_make(tmp_path, sys.executable)
    assert done.returncode == 0, done.stderr
    assert f"{sys.executable} -m venv .venv" in done.stdout


def test_the_wheel_holds_types_schema_and_resources(installed):
    package = installed / "sft_interactions"
    names = ("page.html", "page.css", "page.js", "several.html", "several.js")
    page = [f"report_page/{name}" for name in names]
    for file in ("py.typed", "schemas/config.schema.yaml", "resources/paper_values.csv", *page):
        assert (package / file).is_file(), file


def test_a_script_in_another_folder_extracts_and_plots(installed, tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(installed), "MPLCONFIGDIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    effects, is_explained = done.stdout.splitlines()
    # An exact fit: 1 for each player alone and 1 more for both.
    assert effects == "[[0.0, 1.0, 1.0, 1.0]] False False"
    assert is_explained == "True"
    assert (tmp_path / "plot.png").stat().st_size > 1000


def test_a_type_checker_sees_the_types_of_the_installed_package(installed, tmp_path):
    script, cache = tmp_path / "use.py", tmp_path / "cache"
    script.write_text("import sft_interactions as si\nreveal_type(si.extract)\n")
    # What `make check` has found of other libraries, which under the same settings need not be read again.
    known = ROOT / ".mypy_cache"
    if known.is_dir():
        shutil.copytree(known, cache)
    command = [sys.executable, "-m", "mypy", "--config-file", str(ROOT / "pyproject.toml")]
    done = subprocess.run(
        [*command, "--cache-dir", str(cache), str(script)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "MYPYPATH": "", "PYTHONPATH": str(installed)},
    )
    assert "Extraction" in done.stdout, done.stdout
