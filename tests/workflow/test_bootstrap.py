"""Rules and scripts use the package of their checkout, whatever copy is installed."""

import ast
import copy
import subprocess
import sys

import polars as pl
import pytest
from random_runs import make_run
from tiny_study import CONFIG, ROOT, snakemake

from sft_interactions import tables

SCRIPTS = sorted(ROOT.glob("workflow/scripts/*.py"))


def imported_in_order(path):
    """Top-level packages that a script imports, in the order of its lines."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name.partition(".")[0]) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found.append((node.lineno, node.module.partition(".")[0]))
    return [name for _, name in sorted(found)]


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_every_script_imports_job_before_the_package(path):
    imported = imported_in_order(path)
    if path.stem == "job":
        source = path.read_text()
        assert source.index("sys.path.insert(0") < source.index("\nfrom sft_interactions")
    else:
        assert "job" in imported
        assert "sft_interactions" not in imported[: imported.index("job")]


@pytest.mark.slow
def test_a_wrong_copy_on_the_path_is_not_used(tmp_path, model_folders, monkeypatch):
    wrong = tmp_path / "wrong" / "sft_interactions"
    wrong.mkdir(parents=True)
    (wrong / "__init__.py").write_text("raise ImportError('a wrong copy')\n")
    monkeypatch.setenv("PYTHONPATH", str(wrong.parent))
    plain = subprocess.run([sys.executable, "-c", "import sft_interactions"], capture_output=True)
    assert b"a wrong copy" in plain.stderr

    run = make_run(steps=(0, 1, 3), n=3)
    path = tmp_path / "results" / "runs" / "llama-tiny" / "metrics.parquet"
    tables.write(run.metrics, path, tables.METRICS, created_by="test", inputs_digest="0")
    (tmp_path / "lines.jsonl").touch()
    config = copy.deepcopy(CONFIG)
    config["models"] = {"llama": {"source": f"path:{model_folders['llama']}"}}
    config["runs"] = {"llama-tiny": {"dataset": "lines"}}
    target = "results/tables/metrics.csv"
    done = snakemake(tmp_path, config, target, "--allowed-rules", "metrics_table")
    assert done.returncode == 0, done.stdout[-5000:]
    assert set(pl.read_csv(tmp_path / target)["run"]) == {"llama-tiny"}
