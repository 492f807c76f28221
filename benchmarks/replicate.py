"""How much of a change between two checkpoints is the reading's alone: a checkpoint and its own copy.

    python benchmarks/replicate.py

Into each of some runs of results/reference/stopping a copy of a checkpoint is put, right after it or at
the end. Between the two nothing has changed. A joint reading that makes the changes between neighbours
least, and no more, counts some as lost or new at the end all the same; that of a study has the changes
since the first checkpoint in its sum too. About a minute of one core.
"""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "workflow"))

from sft_interactions import config_file, tables  # noqa: E402
from sft_interactions.analysis.choices import JOINT, SINGLE  # noqa: E402
from sft_interactions.analysis.dynamics import KEY  # noqa: E402
from sft_interactions.analysis.readings import RunReader  # noqa: E402
from sft_interactions.config import resolve  # noqa: E402
from sft_interactions.extraction import extract  # noqa: E402
from sft_interactions.extraction.interactions import to_values  # noqa: E402

RUNS = ("smollm2-tweets-low-seed0", "smollm2-goemotions-low-seed0", "smollm2-dolly-low-seed0")
STEPS = (0, 75, 150, 300)
NEXT, END = "right after it", "at the end"
COPIED = ((0, NEXT), (150, NEXT), (0, END), (150, END))


def signed(rows: pl.DataFrame) -> set[tuple[object, ...]]:
    """Salient interactions with their signs."""
    return set(rows.select(*KEY, positive=pl.col("effect") > 0).iter_rows())


def count_changes(
    folder: Path, copied: int, where: str, reading: str, settings: Mapping[str, Any]
) -> list[float]:
    """Means a prompt: salient at a checkpoint, and of its copy those that it lacks and those that are new.

    Args:
        folder: of a run.
        copied: the step that is copied.
        where: the copy is put, ``NEXT`` or ``END``.
        reading: ``single`` or ``joint``.
        settings: ``extraction`` and ``salience`` of a study.
    """
    at = STEPS.index(copied)
    copy_at = at + 1 if where == NEXT else len(STEPS)
    steps = [*STEPS[:copy_at], copied, *STEPS[copy_at:]]
    values, samples = [], []
    for step in steps:
        path = folder / "log_odds" / f"step-{step}.parquet"
        samples, v = to_values(tables.read(path, tables.LOG_ODDS), str(path))
        values.append(v)
    solved = [extract(v, **settings["extraction"]) for v in values]
    tie_break = settings["extraction"]["tie_break"]
    reader = RunReader(dict(enumerate(values)), dict(enumerate(solved)), samples, tie_break)
    found = reader.salient(reading, settings["salience"])
    own, copy = signed(found[at]), signed(found[copy_at])
    counts = [len(own), len(own - copy), len(copy - own)]
    return (np.array(counts) / len(samples)).tolist()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=Path, default=ROOT / "results" / "reference" / "stopping")
    runs = parser.parse_args().runs
    content, places = config_file.read([ROOT / "config" / "config.yaml"])
    config = resolve(content, places)
    settings = {
        "extraction": config["extraction"],
        "salience": {key: config["salience"][key] for key in ("rule", "threshold")},
    }
    print("| run | step | its copy | reading | salient | lost in the copy | new in it |")
    print("|---|--:|---|---|--:|--:|--:|")
    for name in RUNS:
        for copied, where in COPIED:
            for reading in (SINGLE, JOINT):
                found = count_changes(runs / name, copied, where, reading, settings)
                cells = " | ".join(f"{one:.2f}" for one in found)
                print(f"| {name} | {copied} | {where} | {reading} | {cells} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
