"""The script for a GPU runs on a CPU, with a tiny model, and finds what it should."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]


def test_the_script_for_a_gpu_on_a_cpu(tmp_path):
    output = tmp_path / "gpu.json"
    command = [sys.executable, ROOT / "benchmarks" / "gpu.py", "--device", "cpu", "--tiny"]
    done = subprocess.run(
        [*command, "--output", output], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(output.read_text())
    errors = {row["dtype"]: row for row in found["errors"]}
    assert errors["float32"]["max_error"] < 1e-5
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
