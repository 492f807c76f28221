"""What another CPU changes: a study under fewer instructions, its tables against those of this machine.

    python benchmarks/cpu.py                                  a tiny study, everything in it
    python benchmarks/cpu.py --config FILE --targets FILE...  files of a study of yours, with FILE's results

PyTorch, oneDNN, MKL and OpenBLAS are told to use no more than AVX2 (every x86 of the last ten years), and
no more than SSE4.2; a study is made under each, in a folder of its own. Printed is a row a kind of table:
whether its rows are the same, and by how much its numbers differ at most. Seven minutes of two busy cores
for the tiny study.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl
import polars.selectors as cs

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "workflow")]

from kills import study  # noqa: E402

MACHINE = "all that it has"
INSTRUCTIONS: Mapping[str, Mapping[str, str]] = {
    MACHINE: {},
    "AVX2": {
        "ATEN_CPU_CAPABILITY": "avx2",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
        "OPENBLAS_CORETYPE": "Haswell",
    },
    "SSE4.2": {
        "ATEN_CPU_CAPABILITY": "default",
        "ONEDNN_MAX_CPU_ISA": "SSE41",
        "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
        "OPENBLAS_CORETYPE": "Nehalem",
    },
}


def make(folder: Path, config: Path, targets: Sequence[str], settings: Mapping[str, str]) -> None:
    """Make files of a study in a folder, under some instructions."""
    command = [
        sys.executable,
        "-m",
        "snakemake",
        "-s",
        str(ROOT / "Snakefile"),
        "--directory",
        str(folder),
    ]
    command += ["--cores", "2", "--quiet", "all", "--configfile", str(config), "--", *targets]
    subprocess.run(command, cwd=folder, env={**os.environ, **settings}, check=True)


def kind_of(table: Path, results: Path) -> str:
    """The name of a table without its run, data set and step."""
    place = table.relative_to(results)
    parts = [part for part in place.with_suffix("").parts if not part.startswith("step-")]
    return "/".join(["...", *parts[2:]] if parts[0] in ("runs", "data") else parts)


def differences(one: pl.DataFrame, other: pl.DataFrame) -> tuple[bool, float]:
    """Whether the columns that are no fractions are the same, and the largest difference of the others.

    Where one table lacks a number that the other has, their rows are others.
    """
    exact = ~(cs.float() | cs.nested())
    known = cs.float().is_null()
    if (
        one.shape != other.shape
        or not one.select(exact).equals(other.select(exact))
        or not one.select(known).equals(other.select(known))
    ):
        return False, float("nan")
    first, second = (frame.select(cs.float()).to_numpy() for frame in (one, other))
    return True, float(np.nan_to_num(np.abs(first - second)).max(initial=0.0))


def compare(results: Path, other: Path) -> Iterator[tuple[str, int, int, float]]:
    """Kind of table, its number, how many have other rows, and the largest difference of the others."""
    found: dict[str, list[tuple[bool, float]]] = {}
    for table in sorted(results.rglob("*.parquet")):
        if "store" in table.parts or not (other / table.relative_to(results)).is_file():
            continue
        pair = (pl.read_parquet(place) for place in (table, other / table.relative_to(results)))
        found.setdefault(kind_of(table, results), []).append(differences(*pair))
    for kind, outcomes in found.items():
        same = [size for is_same, size in outcomes if is_same]
        yield kind, len(outcomes), len(outcomes) - len(same), max(same, default=float("nan"))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", type=Path, help="of a study that needs no network")
    parser.add_argument("--targets", nargs="*", default=["all"])
    parser.add_argument("--results", default="results", help="as the config has it")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="sft-cpu-") as temporary:
        folders = {name: Path(temporary) / name.replace(" ", "-") for name in INSTRUCTIONS}
        for name, folder in folders.items():
            folder.mkdir()
            config = options.config and options.config.resolve()
            if config is None:
                study.prepare(folder)
                config = folder / "config.yaml"
            make(folder, config, options.targets, INSTRUCTIONS[name])
        first = folders[MACHINE] / options.results
        for name, folder in folders.items():
            if name == MACHINE:
                continue
            print(f"\n{name} against {MACHINE}")
            print("| table | files | with other rows | largest difference of the others |")
            print("|---|--:|--:|--:|")
            for kind, n, n_other, size in compare(first, folder / options.results):
                print(f"| {kind} | {n} | {n_other} | {size:.1e} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
