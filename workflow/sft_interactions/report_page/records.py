"""What the jobs left beside the tables: run times, warnings, digests, the checkout."""

import csv
import json
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from sft_interactions import tables

# A line of a log that Python's warnings wrote: time, file, line, category, text.
_WARNING = re.compile(r"^\d\d:\d\d:\d\d \S.*?:\d+: (\w*Warning): (.*)$")


@dataclass(frozen=True)
class Cost:
    """What the jobs of a stage took.

    Attributes:
        stage: folder of the benchmarks, which is named like the rule.
        jobs: number of jobs.
        seconds: run time, summed over jobs.
        memory_mb: the most memory that a job held, in MB; None where none was measured.
    """

    stage: str
    jobs: int
    seconds: float
    memory_mb: float | None


@dataclass(frozen=True)
class Warned:
    """A warning that jobs gave.

    Attributes:
        stage: folder of the logs.
        category: of the warning, such as ``DeprecationWarning``.
        text: its first line.
        times: number of times.
    """

    stage: str
    category: str
    text: str
    times: int


def _files_of_study(folder: Path, pattern: str, others: Iterable[str]) -> Iterator[Path]:
    """Files below a folder, without those of runs that the study does not have."""
    left_out = set(others)
    for path in sorted(folder.rglob(pattern)):
        inside = path.relative_to(folder)
        if not left_out & {*inside.parts[:-1], inside.stem}:
            yield path


def read_costs(folder: str | Path, others: Sequence[str] = ()) -> list[Cost]:
    """Read what the jobs took, from the benchmarks that Snakemake wrote.

    Args:
        folder: of the benchmarks.
        others: runs in the results folder that are not of the study; their jobs are left out.

    Returns:
        One entry a stage, the longest first.

    Raises:
        ValueError: a file is no benchmark.
    """
    folder = Path(folder)
    seconds: dict[str, list[float]] = {}
    memory: dict[str, list[float]] = {}
    for path in _files_of_study(folder, "*.tsv", others):
        stage = path.relative_to(folder).with_suffix("").parts[0]
        try:
            with path.open(encoding="utf-8", newline="") as file:
                for row in csv.DictReader(file, delimiter="\t"):
                    seconds.setdefault(stage, []).append(float(row["s"]))
                    if row["max_rss"] not in ("-", "NA", ""):
                        memory.setdefault(stage, []).append(float(row["max_rss"]))
        except (KeyError, ValueError, TypeError):
            raise ValueError(
                f"{path}: this is no benchmark of Snakemake; delete the file"
            ) from None
    costs = [
        Cost(stage, len(values), sum(values), max(memory[stage]) if stage in memory else None)
        for stage, values in seconds.items()
    ]
    return sorted(costs, key=lambda cost: (-cost.seconds, cost.stage))


def read_warnings(folder: str | Path, others: Sequence[str] = ()) -> list[Warned]:
    """Read the warnings that jobs gave, from their logs.

    Args:
        folder: of the logs.
        others: as for :func:`read_costs`.

    Returns:
        One entry a stage, category and text, in that order.
    """
    folder = Path(folder)
    found: Counter[tuple[str, str, str]] = Counter()
    for path in _files_of_study(folder, "*.log", others):
        stage = path.relative_to(folder).with_suffix("").parts[0]
        for line in path.read_text("utf-8", errors="replace").splitlines():
            if match := _WARNING.match(line):
                found[stage, match[1], match[2]] += 1
    return [Warned(*key, times) for key, times in sorted(found.items())]


def read_digests(paths: Iterable[str | Path], root: str | Path) -> pl.DataFrame:
    """What the metadata of some tables say of them, checked against the files.

    Args:
        paths: Parquet tables.
        root: the results folder.

    Returns:
        Rows (file, rule, code, digest), one a table; digest is null for a table of version 2.

    Raises:
        ValueError: a table is damaged.
    """
    rows = []
    for path in paths:
        metadata = tables.read_metadata(path)
        place = tables.place_below(path, root) or str(path)
        digest = metadata.get(tables.DIGEST_KEY)
        rows.append((place, metadata["created_by"], metadata["code_version"], digest))
    schema = dict.fromkeys(("file", "rule", "code", "digest"), pl.String)
    return pl.DataFrame(rows, schema=schema, orient="row").unique().sort("file")


def read_skipped(paths: Iterable[str | Path], root: str | Path) -> list[tuple[str, str, str]]:
    """What some tables say that they left out.

    Args:
        paths: tables of samples or of prompts.
        root: the results folder.

    Returns:
        (place of the table below the results folder, reason, number).

    Raises:
        ValueError: a table is damaged.
    """
    found = []
    for path in paths:
        skipped = json.loads(tables.read_metadata(path).get("skipped", "{}"))
        place = tables.place_below(path, root) or str(path)
        found += [(place, reason, str(number)) for reason, number in skipped.items() if number]
    return found


def describe_log_odds(paths: Iterable[str | Path]) -> str:
    """How the log-odds of a run were made, and how exact they are, in words.

    Args:
        paths: its tables of log-odds.

    Raises:
        ValueError: a table is damaged, or does not tell.
    """
    made, errors = set(), []
    for path in paths:
        metadata = tables.read_metadata(path)
        try:
            made.add(f"{metadata['dtype']}, {metadata['method'].replace('_', ' ')}")
            errors.append(float(metadata["log_odds_error_max"]))
        except (KeyError, ValueError):
            raise ValueError(
                f"{path}: it does not tell how it was made; delete it and run snakemake again to rebuild it"
            ) from None
    return f"{'; '.join(sorted(made))}; measured error up to {max(errors):.1g}"


def checkout_of(folder: str | Path) -> str:
    """Commit of a Git checkout, and whether its files differ from it, in words."""
    if shutil.which("git") is None or not (Path(folder) / ".git").exists():
        return "not a Git checkout"
    commit, changed = (
        subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=False
        )
        for arguments in (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
    )
    if commit.returncode or changed.returncode:
        return "a Git checkout that git cannot read"
    state = ", with changes" if changed.stdout.strip() else ""
    return f"{commit.stdout.strip()}{state}"
