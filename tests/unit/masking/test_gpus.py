import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sft_interactions.masking import gpus

# Claims are seen by every process of the machine, other test sessions included.
FIRST, SECOND = (f"test-{os.getpid()}-{number}" for number in range(2))
HOLD = """
from sft_interactions.masking.gpus import claim_gpu
import os, sys
claim_gpu()
print(os.environ["CUDA_VISIBLE_DEVICES"], flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def no_claim_is_left():
    yield
    while gpus._claims:
        gpus._claims.pop().close()


def hold(visible):
    """Another process that claims a GPU and keeps it until its standard input is closed."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD],
        env={
            **os.environ,
            "CUDA_VISIBLE_DEVICES": visible,
            "PYTHONPATH": str(Path(gpus.__file__).parents[2]),
        },
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    return process, process.stdout.readline().strip()


def test_every_process_gets_a_gpu_of_its_own_and_gives_it_back(monkeypatch):
    first, its = hold(f"{FIRST},{SECOND}")
    assert its == FIRST
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", f"{FIRST}, {SECOND}")
    gpus.claim_gpu()
    assert os.environ["CUDA_VISIBLE_DEVICES"] == SECOND

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", f"{FIRST},{SECOND}")
    with pytest.raises(ValueError, match=r"all 2 GPUs are claimed .* --resources gpu=2"):
        gpus.claim_gpu()

    first.kill()
    first.communicate()
    gpus.claim_gpu()
    assert os.environ["CUDA_VISIBLE_DEVICES"] == FIRST


def test_the_module_needs_the_standard_library_only():
    imported = set()
    for node in ast.walk(ast.parse(Path(gpus.__file__).read_text("utf-8"))):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(node.module)
    assert imported <= sys.stdlib_module_names


@pytest.mark.parametrize("visible", ["", "3", "GPU-1234"])
def test_what_a_batch_system_has_given_is_left_alone(monkeypatch, visible):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    gpus.claim_gpu()
    assert os.environ["CUDA_VISIBLE_DEVICES"] == visible
    assert gpus._claims == []


@pytest.mark.parametrize(
    ("answer", "seen"),
    [("echo GPU-a; echo GPU-b", ["GPU-a", "GPU-b"]), ("echo no driver; exit 9", [])],
)
def test_gpus_are_asked_for_by_uuid(monkeypatch, tmp_path, answer, seen):
    command = tmp_path / "nvidia-smi"
    command.write_text(f"#!/bin/sh\n{answer}\n")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert gpus.visible_gpus() == seen


def test_a_machine_without_a_driver_has_none(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    gpus.claim_gpu()
    assert "CUDA_VISIBLE_DEVICES" not in os.environ
