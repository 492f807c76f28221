"""Benchmarks run at a small size and find what they should."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).parents[2]


# A machine with a GPU has what trains models, seldom what else a study needs.
# (Libraries may look for others: it is our files that must do without.)
WITHOUT = """
import sys

MISSING = {"datasets", "highspy", "icu4py", "jsonschema", "polars", "pyarrow", "rjieba", "ruptures"}

class Missing:
    def find_spec(self, name, path=None, target=None):
        frame = sys._getframe(1)
        while "importlib" in frame.f_code.co_filename:
            frame = frame.f_back
        if name in MISSING and "site-packages" not in frame.f_code.co_filename:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
"""


def test_the_script_for_a_gpu_on_a_cpu(tmp_path):
    output = tmp_path / "gpu.json"
    (tmp_path / "sitecustomize.py").write_text(WITHOUT)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    probe = [sys.executable, "-c", "import polars"]
    assert subprocess.run(probe, capture_output=True, env=environment).returncode == 1
    command = [sys.executable, ROOT / "benchmarks" / "gpu.py", "--device", "cpu", "--tiny"]
    done = subprocess.run(
        [*command, "--output", output],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(output.read_text())
    errors = {row["dtype"]: row for row in found["errors"]}
    assert [row["way"] for row in found["errors"]] == ["whole prompts", *["prefix tree"] * 2]
    assert all(row["max_error"] < 1e-5 for row in found["errors"] if row["dtype"] == "float32")
    assert all(row["repeats_to_the_bit"] for row in found["errors"] + found["training"])
    assert 0 < errors["bfloat16"]["max_error"] < errors["bfloat16"]["range_of_v"]
    (memory,) = found["memory"]
    assert memory["halved"]
    assert memory["max_difference"] < 1e-4
    (sharing,) = found["sharing"]
    assert sharing["both_ran"]
    assert sharing["same_v"]
    assert sharing["third_refused"], sharing["message"]
    assert found["training"][0]["steps_per_second"] > 0
    assert {row["dtype"] for row in found["speed"]} == {"float32", "bfloat16"}
    assert all(row["prompts_per_minute"] > 0 for row in found["speed"])


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so(tmp_path):
    command = [sys.executable, ROOT / "benchmarks" / "gpu.py"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2
    assert "torch finds no GPU; use --device cpu --tiny" in done.stderr


def test_planted_runs_are_read_and_a_reading_is_chosen(tmp_path):
    output = tmp_path / "planted.json"
    command = [sys.executable, ROOT / "benchmarks" / "planted.py", "--quick"]
    done = subprocess.run(
        [*command, "--output", output], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(output.read_text())
    assert len(found["grid"]) == 78
    assert all(0 < row["f1"] < 1 for row in found["grid"])
    (chosen,) = [row for row in found["on_top"] if row.items() >= found["chosen"].items()]
    for rows in (found["grid"], found["on_top"]):
        assert [row["f1"] for row in rows] == sorted((row["f1"] for row in rows), reverse=True)
    ratios = [row["count_ratios"] for row in found["on_top"]]
    within = [0.67 <= min(ratio) <= max(ratio) <= 1.5 for ratio in ratios]
    assert within[found["on_top"].index(chosen)] or not any(within)
    assert f"chosen: ζ {chosen['noise_ratio']:g}" in done.stdout
    for row in found["readings"]:
        assert row["blocks"] == row["n_samples"] // row["samples"]
        assert 0 <= row["removed precision"] <= 1
        assert row["removed f1"] <= max(row["removed precision"], row["removed recall"]) + 1e-12
    empty = {"unchanged": ("emerged", "removed"), "overfitting": ("removed",)}
    assert {row["scenario"] for row in found["scenarios"]} > set(empty)
    for row in found["scenarios"]:
        for label in empty.get(row["scenario"], ()):
            assert row[f"{label} planted"] == 0
    verdicts = {row["scenario"]: row for row in found["verdicts"]}
    nothing = verdicts["unchanged"]
    assert sum(nothing[f"protocol {finding} supported"] for finding in range(1, 6)) == 0
    assert not any(answer.isdigit() for answer in nothing["stage"])
    for scenario in ("two_stages", "as_claimed"):
        assert all(answer.isdigit() for answer in verdicts[scenario]["stage"])
        assert all(0.5 < share <= 1 for share in verdicts[scenario]["early"])
    over_seeds = {row["scenario"]: row for row in found["seeds"]}
    for name in ("one seed", "three seeds"):
        assert sum(over_seeds["unchanged"][f"{name} {k} supported"] for k in range(1, 6)) == 0
    for row in found["coverage"]:
        assert 0 <= row["printed"] <= 1
        assert row["blocks"] == 4
    for row in found["coverage of metrics"]:
        assert row["least"] <= row["holds"] <= 1
        assert row["with_interval"] > 0


@pytest.fixture(scope="module")
def planted():
    spec = importlib.util.spec_from_file_location("planted", ROOT / "benchmarks" / "planted.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["planted"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["planted"]


def row_of(reading, right, count_ratio=1.0):
    """A row of one setting: ten interactions of each class a sample, of which so many are right."""
    hits = np.full((len(right), 1, 3, 3), 10)
    hits[..., 2] = np.array(right)[:, None, None]
    return {
        "reading": reading,
        "f1": float(np.mean(right) / 10),
        "count_ratios": [count_ratio],
        "hits": [hits],
    }


def test_the_rule_of_the_choice(planted):
    today = planted.TODAY
    near = planted.Reading(noise_ratio=0.02)
    far = planted.Reading(noise_ratio=0.01, noise_scale="range", threshold=0.1)
    # Two samples more or less: the difference of 0.1 has an error of 0.1, that of 0.3 has none.
    best, tied = row_of(far, [6, 8, 7]), row_of(near, [7, 5, 6])
    clear = row_of(today, [3, 5, 4])
    assert planted.difference_error(best, tied) == pytest.approx(0.1155, abs=1e-3)
    assert planted.difference_error(best, clear) == pytest.approx(0, abs=1e-12)
    assert planted.choose([best, tied, clear])["reading"] == near
    assert planted.choose([best, clear])["reading"] == far
    # One outside the limits of the counts does not compete, unless all are outside.
    out = row_of(far, [6, 8, 7], count_ratio=1.6)
    assert planted.choose([out, clear])["reading"] == today
    assert planted.choose([out, row_of(today, [3, 5, 4], count_ratio=0.5)])["reading"] == far


def test_today_is_nearest_to_itself(planted):
    order = sorted(planted.GRID, key=planted.distance)
    assert order[0] == planted.TODAY
    assert {reading.noise_ratio for reading in order[1:3]} <= {0.02, 0.04, 0.08}
    assert len(set(planted.GRID)) == len(planted.GRID) == 78


def test_a_reading_with_the_threshold_of_the_first_checkpoint(planted):
    setting = planted.Setting(5, 2, 0.01, n_checkpoints=2)
    reader = planted.Reader(setting.plant())
    own, first = (
        planted.KEPT[name](reader, planted.TODAY) for name in ("all", "τ of the first checkpoint")
    )
    assert own[0].equals(first[0])
    largest = own[0].group_by("sample_id").agg(planted.pl.col("effect").abs().max())
    smallest = first[1].group_by("sample_id").agg(planted.pl.col("effect").abs().min())
    for (sample, size), (other, least) in zip(
        largest.sort("sample_id").iter_rows(), smallest.sort("sample_id").iter_rows(), strict=True
    ):
        assert sample == other
        assert least >= 0.05 * size
