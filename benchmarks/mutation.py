"""Would the tests notice a mistake in the method? Mutants of its modules, made by cosmic-ray.

    pip install cosmic-ray==8.7.0                   into an environment that runs the tests
    python benchmarks/mutation.py                   a sample of each module; about 15 minutes
    python benchmarks/mutation.py --survivors       those that survived the last time, once more
    python benchmarks/mutation.py --table           the tables anew, after changes of the reasons

A mutant is the module with one change. It is killed if a unit test of the module fails. Mutants are
tried in a copy of the repository. cosmic-ray makes them; it would start Python anew for each, which takes
longer than the tests, so they are run here in forks of a process that has loaded the libraries.

Writes mutants.csv, summary.csv and survivors.md to results/reference/mutation. The reasons in survivors.md
are those of benchmarks/mutation_reasons.csv, which are written by hand.
"""

import argparse
import compileall
import csv
import difflib
import importlib
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from py_compile import PycInvalidationMode

import parso.tree
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.ast.ast_query import ASTQuery
from cosmic_ray.mutating import mutate_code
from cosmic_ray.operators.operator import Operator
from cosmic_ray.plugins import get_operator, operator_names
from scipy.stats import binomtest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = Path("workflow/sft_interactions")
RESULTS = ROOT / "results/reference/mutation"
REASONS = Path(__file__).with_name("mutation_reasons.csv")
# Each module with the tests that are run on it, those that mirror it first.
TESTS = {
    "extraction/transforms.py": ["extraction/test_transforms.py"],
    "extraction/interactions.py": ["extraction/test_interactions.py"],
    "analysis/dynamics.py": ["analysis/test_dynamics.py"],
    "analysis/metrics.py": ["analysis/test_metrics.py"],
    "analysis/stages.py": ["analysis/test_stages.py"],
    "analysis/turnover.py": ["analysis/test_turnover.py"],
    "analysis/verdict.py": ["analysis/test_verdict.py"],
    "masking/log_odds.py": ["masking/test_log_odds.py", "masking/test_memory.py"],
}
# What the tests load, but not the package under test.
LIBRARIES = "torch transformers peft polars ruptures scipy.stats tiny_models".split()
ARITHMETIC = {"Add", "Sub", "Mul", "Div", "FloorDiv", "Mod", "Pow"}
BITS = {"BitOr", "BitAnd", "BitXor", "LShift", "RShift"}
CPU_SECONDS, SECONDS = 60, 300  # tests that take longer do not end


class RemoveKeyword(Operator):
    """Leaves out an argument that is given by its name: the default takes its place."""

    def mutation_positions(self, node):
        return [(child.start_pos, child.end_pos) for child in _keywords(node)]

    def mutate(self, node, index):
        place = node.children.index(_keywords(node)[index])
        # With the comma after it, or before it at the end.
        after = node.children[place + 1 : place + 2]
        first = (
            place if after and after[0].type == "operator" and after[0].value == "," else place - 1
        )
        alone = node.type == "trailer"
        del node.children[place if alone else first : place + 1 if alone else first + 2]
        return node

    @classmethod
    def examples(cls):
        return ()


def _keywords(node: parso.tree.NodeOrLeaf) -> list[parso.tree.NodeOrLeaf]:
    if node.type not in ("arglist", "trailer"):
        return []
    return [c for c in node.children if c.type == "argument" and c.children[1] == "="]


@dataclass
class Mutant:
    """A change of a module, and what became of it."""

    module: str
    place: str
    line: int
    operator: str
    change: str
    outcome: str = ""

    @property
    def key(self) -> tuple[str, str, str]:
        return self.module, self.place, self.change


def operators() -> Iterator[tuple[str, Operator]]:
    """Those of cosmic-ray without arguments, but the swaps that could only be type errors; and ours."""
    for name in operator_names():
        operator = get_operator(name)
        swap = re.search(r"Replace(Binary|Comparison)Operator_(\w+)_(\w+)", name)
        if operator.arguments():
            continue
        if (
            swap
            and swap[1] == "Binary"
            and ({*swap.groups()[1:]} & BITS)
            and not {*swap.groups()[1:]} <= BITS
        ):
            continue
        if swap and swap[1] == "Comparison" and ("Is" in swap[2]) != ("Is" in swap[3]):
            continue
        yield name.removeprefix("core/"), operator()
    yield "RemoveKeyword", RemoveKeyword()


def in_annotation(node: parso.tree.NodeOrLeaf) -> bool:
    """Whether a node is part of a type hint, whose changes mean nothing."""
    while node.parent is not None:
        parent, place = node.parent, node.parent.children.index(node)
        if parent.type in ("tfpdef", "annassign") and parent.children[place - 1] == ":":
            return True
        if parent.type == "funcdef" and parent.children[place - 1] == "->":
            return True
        node = parent
    return False


def mutants_of(module: str) -> list[tuple[Mutant, str]]:
    """Every mutant of a module with its code, each code once."""
    source = (ROOT / PACKAGE / module).read_text()
    found, seen = [], {source}
    for name, operator in operators():
        nodes = [
            node for node in ast_nodes(get_ast(source)) for _ in operator.mutation_positions(node)
        ]
        for occurrence, node in enumerate(nodes):
            code = mutate_code(source, operator, occurrence)
            if code is None or code in seen or in_annotation(node):
                continue
            seen.add(code)
            place = ASTQuery(node).get_definition_name() or "module"
            found.append(
                (Mutant(module, place, node.start_pos[0], name, change(source, code)), code)
            )
    return found


def change(before: str, after: str) -> str:
    """The lines that differ, as ``old -> new``."""
    lines = [*difflib.ndiff(before.splitlines(), after.splitlines())]
    old, new = (" ".join(line[2:].strip() for line in lines if line[0] == sign) for sign in "-+")
    return f"{old} -> {new}"


def copy_repository(folder: Path) -> None:
    """Copies what Git knows, or would know, with byte code that is known by its source, not by its date."""
    listed = subprocess.check_output(
        [
            "git",
            "ls-files",
            "-co",
            "--exclude-standard",
            "workflow",
            "tests",
            "benchmarks",
            "config",
            "pyproject.toml",
        ],
        cwd=ROOT,
        text=True,
    ).splitlines()
    for name in filter(lambda name: (ROOT / name).is_file(), listed):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, folder / name)
    compileall.compile_dir(
        folder / PACKAGE, quiet=2, force=True, invalidation_mode=PycInvalidationMode.CHECKED_HASH
    )


def prepare(folder: Path) -> None:
    """Copies the repository and loads the libraries."""
    copy_repository(folder)
    os.environ |= {"OMP_NUM_THREADS": "1", "POLARS_MAX_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    # Plugins warn of what has been loaded before them; one draws the order of the tests.
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    # Of a mutant no byte code may stay.
    sys.dont_write_bytecode = True
    sys.path.insert(0, str(folder / "tests"))
    for library in LIBRARIES:
        importlib.import_module(library)


def run_tests(folder: Path, tests: Iterable[str]) -> str:
    """What the tests say of the code in the folder: survived, killed (and by what), or hung."""
    child = os.fork()
    if child == 0:
        os._exit(_run_pytest(folder, [f"tests/unit/{name}" for name in tests]))
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return {signal.SIGXCPU: "killed: CPU time", signal.SIGALRM: "hung"}.get(
            os.WTERMSIG(status), "killed: signal"
        )
    return {0: "survived", 1: "killed"}.get(os.WEXITSTATUS(status), "killed: import")


def _run_pytest(folder: Path, tests: Sequence[str]) -> int:
    resource.setrlimit(resource.RLIMIT_CPU, (_cpu_so_far() + CPU_SECONDS,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (12 << 30,) * 2)
    signal.alarm(SECONDS)
    os.chdir(folder)
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    pytest = importlib.import_module("pytest")
    options = ["-x", "-q", "--tb=no", "-p", "no:cacheprovider", "-m", "not slow"]
    return int(pytest.main([*options, *tests]))


def _cpu_so_far() -> int:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return int(used.ru_utime + used.ru_stime)


def try_mutants(folder: Path, module: str, chosen: Sequence[tuple[Mutant, str]]) -> None:
    """Fills in the outcomes of mutants of a module."""
    path = folder / PACKAGE / module
    source = path.read_text()
    if run_tests(folder, TESTS[module]) != "survived":
        raise SystemExit(f"{module}: its tests fail without a mutation; mend them first")
    for mutant, code in chosen:
        path.write_text(code)
        mutant.outcome = run_tests(folder, TESTS[module])
        print(f"{mutant.outcome:10} {module}:{mutant.line} {mutant.change}", flush=True)
    path.write_text(source)


def read_rows(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def write_rows(path: Path, rows: Sequence[dict[str, object]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def summarize(
    name: str, made: int, tried: Sequence[Mutant], excused: set[tuple[str, str, str]]
) -> dict[str, object]:
    """One row of summary.csv; shares with their 95 % Wilson interval where not all were tried."""
    survived = [mutant for mutant in tried if not mutant.outcome.startswith("killed")]
    killed = len(tried) - len(survived)
    equivalent = sum(mutant.key in excused for mutant in survived)
    counted = len(tried) - equivalent
    low, high = binomtest(killed, counted).proportion_ci(method="wilson") if counted else (0, 1)
    return {
        "module": name,
        "mutants": made,
        "tried": len(tried),
        "killed": killed,
        "survived": len(survived),
        "equivalent": equivalent,
        "killed_of_tried": f"{killed / len(tried):.3f}",
        "killed_of_not_equivalent": f"{killed / counted:.3f}",
        "ci_low": f"{low:.3f}",
        "ci_high": f"{high:.3f}",
    }


def write_results(folder: Path, made: dict[str, int], tried: Sequence[Mutant]) -> str:
    reasons = {(row["module"], row["place"], row["change"]): row for row in read_rows(REASONS)}
    excused = {key for key, row in reasons.items() if row["equivalent"] == "yes"}
    rows = [
        summarize(module, made[module], [m for m in tried if m.module == module], excused)
        for module in made
        if any(m.module == module for m in tried)
    ]
    rows.append(summarize("all", sum(made.values()), tried, excused))
    folder.mkdir(parents=True, exist_ok=True)
    write_rows(folder / "summary.csv", rows)
    write_rows(folder / "mutants.csv", [asdict(mutant) for mutant in tried])
    lines = [
        "# Mutants that survived",
        "",
        "Made by `benchmarks/mutation.py`; the reasons are those of `benchmarks/mutation_reasons.csv`.",
        "",
        "| module, line | change | equivalent | reason |",
        "|---|---|---|---|",
    ]
    for mutant in tried:
        if not mutant.outcome.startswith("killed"):
            row = reasons.get(mutant.key, {"equivalent": "no", "reason": "not looked at"})
            text = mutant.change.replace("|", "\\|")
            lines.append(
                f"| {mutant.module}:{mutant.line} ({mutant.place}) | `{text}` | {row['equivalent']} "
                f"| {row['reason']} |"
            )
    (folder / "survivors.md").write_text("\n".join(lines) + "\n")
    return "\n".join(map(str, rows))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--modules", nargs="+", choices=TESTS, default=list(TESTS))
    parser.add_argument("--sample", type=int, default=80, help="mutants of each module")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the tables")
    parser.add_argument(
        "--survivors", action="store_true", help="try only what survived the last time"
    )
    parser.add_argument("--count", action="store_true", help="print the number of mutants, and end")
    parser.add_argument(
        "--table", action="store_true", help="write the tables of what was tried anew"
    )
    options = parser.parse_args()

    made, chosen = {}, []
    for module in TESTS:
        of_module = mutants_of(module)
        made[module] = len(of_module)
        chosen += random.Random(options.seed).sample(of_module, min(options.sample, len(of_module)))
    if options.count:
        print(*made.items(), sep="\n")
        return
    before = {
        (row["module"], row["place"], row["change"]): row["outcome"]
        for row in read_rows(options.results / "mutants.csv")
    }
    for mutant, _ in chosen:
        mutant.outcome = before.get(mutant.key, "")
    if not options.table:
        again = [
            (mutant, code)
            for mutant, code in chosen
            if mutant.module in options.modules
            and not (options.survivors and mutant.outcome.startswith("killed"))
        ]
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            prepare(folder)
            for module in dict.fromkeys(mutant.module for mutant, _ in again):
                try_mutants(folder, module, [(m, code) for m, code in again if m.module == module])
                # After each, so that a run that is stopped has not been for nothing.
                write_results(options.results, made, [m for m, _ in chosen if m.outcome])
    print(write_results(options.results, made, [m for m, _ in chosen if m.outcome]))


if __name__ == "__main__":
    main()
