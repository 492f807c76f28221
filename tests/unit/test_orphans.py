"""A job ends with its run, and what it had half written is removed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sft_interactions import orphans, tables

PACKAGE = str(Path(orphans.__file__).parents[1])
JOB = f"""
import os, sys, time
sys.path.insert(0, {PACKAGE!r})
from sft_interactions.orphans import end_with_run
end_with_run(os.environ)
print("at work", flush=True)
time.sleep(3600)
"""
# Snakemake starts a job by a shell.
RUN = f"""
import os, subprocess, sys
sys.path.insert(0, {PACKAGE!r})
from sft_interactions.orphans import name_run
name_run(os.environ)
job = subprocess.Popen(["sh", "-c", f'"{{sys.executable}}" -c "$JOB"; true'])
job.wait()
"""


@pytest.mark.slow
def test_a_job_ends_with_a_run_that_is_killed():
    run = subprocess.Popen(
        [sys.executable, "-c", RUN],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "JOB": JOB},
    )
    assert run.stdout.readline() == "at work\n"
    run.kill()
    run.wait()
    # The end of the output comes when the last process that holds it has ended.
    assert run.communicate(timeout=600)[0] == ""


@pytest.mark.slow
def test_a_process_goes_on_where_no_run_is_named_or_seen():
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    for environ in ({}, {"SFT_INTERACTIONS_RUN": str(gone.pid)}, {"SFT_INTERACTIONS_RUN": "x"}):
        job = "import os, sys, time\nsys.path.insert(0, os.environ['PACKAGE'])\n"
        job += "from sft_interactions.orphans import end_with_run\nend_with_run(os.environ)\n"
        job += "time.sleep(1)\n"
        inherited = {k: v for k, v in os.environ.items() if k != "SFT_INTERACTIONS_RUN"}
        done = subprocess.run(
            [sys.executable, "-c", job],
            check=False,
            env={**inherited, **environ, "PACKAGE": PACKAGE},
        )
        assert done.returncode == 0


def test_what_was_half_written_is_removed_and_nothing_else(tmp_path):
    kept = tmp_path / "runs" / "a" / "metrics.parquet"
    elsewhere = tmp_path / "elsewhere" / ".partial-x"
    for path in (kept, elsewhere):
        path.parent.mkdir(parents=True)
        path.touch()
    (kept.parent / "checkpoints").symlink_to(elsewhere.parent)
    with tables.replacing(kept) as temporary:
        half = [temporary, kept.parent / ".partial-1-step-3" / "weights"]
        half[1].parent.mkdir()
        half[1].touch()
        orphans.remove_partial([tmp_path / "runs", tmp_path / "none"], is_deep=False)
        assert all(path.exists() for path in half)
        orphans.remove_partial([tmp_path / "runs", tmp_path / "none"], is_deep=True)
        assert not any(path.exists() for path in half)
        temporary.touch()
    assert kept.is_file()
    assert elsewhere.is_file()
