"""Stop a tiny study at random moments; the same command must finish it, with the same files to the bit.

    python tests/kills/run.py --rounds 1 --seed 0 --table kills.csv

A round is every kind of fault in every stage. The outputs of a job of a finished study, drawn at random,
and of some that follow it are taken away; while they are made again the fault comes; then the same command
is given once more. Nothing is cleaned by hand.
"""

import argparse
import csv
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS), str(TESTS.parent / "workflow")]

from kills import faults, study  # noqa: E402

SLOTS = [*study.STAGES, "fine-tuning", "inference"]  # these twice in a round
LONGEST_STOP = 10.0  # seconds
LONGEST_RUN = 180.0  # seconds until a run whose job has met a fault has ended
DISK = 96 * 2**20  # bytes
DRAWS = 5  # moments that are tried until a fault hits


@dataclass
class Row:
    """A fault and what came of it."""

    number: int
    kind: str
    stage: str
    job: str
    moment: str
    at_work: str
    jobs: int
    ended_s: float
    status: int
    finished_s: float
    outcome: str


@dataclass
class Bench:
    """A study to try faults on: its folder, a finished copy, its jobs and the contents of its results."""

    folder: Path
    kept: Path
    jobs: list[study.Job]
    expected: dict[str, str]
    cores: int
    longest_path: int = 3  # jobs that are made again
    phases: Sequence[str] = ("start", "work", "write", "write")

    def try_fault(self, number: int, kind: str, stage: str, draw: random.Random) -> Row | None:
        """Try a fault; None where it hits nothing, as a limit on memory of a job that takes no more."""
        # Where a process gets no memory while it imports its libraries, what it says is Python's own.
        phases = self.phases
        if kind == "memory of a process":
            phases = ("work", "write")
        tries = [phases, *[phases[:1]] * (DRAWS - 1)]
        rows = (self._try_once(number, kind, stage, draw, some) for some in tries)
        return next((row for row in rows if row is not None), None)

    def _try_once(
        self, number: int, kind: str, stage: str, draw: random.Random, phases: Sequence[str]
    ) -> Row | None:
        first = draw.choice([job for job in self.jobs if study.STAGE_OF[job.rule] == stage])
        last, path = study.path_from(first, self.jobs, draw, self.longest_path)
        targets = last.outputs
        study.restore(self.folder, self.kept)
        study.take_away(self.folder, path)
        moment = faults.Moment(first, draw, phases)
        run = study.start(self.folder, *targets, cores=self.cores)
        if not moment.wait(self.folder, run):
            return None
        at_work = sorted({name for _, name in faults.scripts_at_work(run.pid)})
        is_past_start = moment.is_past_start
        begun = time.monotonic()
        with faults.inflicted(kind, run, self.folder, draw):
            hangs = not faults.ends(run, LONGEST_RUN)
            status = run.wait()
            # A user who killed Snakemake alone does not wait for its jobs.
            while kind != "SIGKILL of Snakemake" and faults.processes_of(run.pid):
                time.sleep(0.1)
        ended = time.monotonic() - begun
        if status == 0:
            return None  # it ended before it noticed
        said = study.log_of(self.folder).read_text(errors="replace")
        problems = (
            _problems_of_the_end(kind, said, ended, at_work, is_past_start=is_past_start)
            + self._problems_of_the_files()
        )
        if hangs:
            problems.append(f"did not end within {LONGEST_RUN:.0f} s, and was killed")
        begun = time.monotonic()
        code = study.start(self.folder, *targets, cores=self.cores).wait(600)
        finished = time.monotonic() - begun
        if code != 0:
            problems.append(f"the same command: status {code}")
            print(study.log_of(self.folder).read_text(errors="replace")[-3000:], flush=True)
        problems += self._problems_at_last(path)
        if problems:
            print(said[-3000:], flush=True)
        return Row(
            number,
            kind,
            stage,
            first.log.removeprefix("results/logs/").removesuffix(".log"),
            str(moment),
            " ".join(at_work),
            len(path),
            round(ended, 1),
            status,
            round(finished, 1),
            "; ".join(problems) or "the same files",
        )

    def _problems_of_the_files(self) -> list[str]:
        """Files under their final names that are not what they are in the end."""
        return [
            f"{name} is half written"
            for name, digest in study.contents(self.folder).items()
            if digest != self.expected.get(name, digest) and not name.endswith("/state.json")
        ]

    def _problems_at_last(self, path: list[study.Job]) -> list[str]:
        found = study.contents(self.folder)
        problems = [f"{name} is new" for name in found.keys() - self.expected.keys()]
        # Of what is kept of an inference, only what was asked for is there again.
        stores = [place for job in path for place in job.store if place.endswith("log_odds")]
        for name, digest in self.expected.items():
            if name not in found and not f"results/{name}".startswith(tuple(stores)):
                problems.append(f"{name} is missing")
            elif found.get(name, digest) != digest:
                problems.append(f"{name} differs")
        books = self.folder / ".snakemake"
        for place in (*books.glob("locks/*"), *books.glob("incomplete/*")):
            problems.append(f"{place.name} is left")
        names = {path.name for path in (self.kept / ".snakemake").iterdir()}
        problems += [f"{one.name} is left" for one in books.iterdir() if one.name not in names]
        return problems


def _problems_of_the_end(
    kind: str, said: str, ended: float, at_work: list[str], *, is_past_start: bool
) -> list[str]:
    problems = []
    # Before the first job and after the last one a signal does what it does to any program.
    lines = faults.LINES.get(kind, ()) if at_work else ()
    # A Python that gets no memory while it imports says so in its own words.
    if kind == "memory of a process" and not is_past_start:
        lines = ()
    if lines and not any(line in said for line in lines):
        problems.append(f"does not say: {lines[0]}")
    # Until a script has its libraries, what a signal meets is Python's start, or Snakemake's lines.
    if lines and is_past_start and faults.TRACEBACK in said:
        problems.append("a traceback")
    if kind.startswith(("SIGTERM", "SIGINT")) and ended > LONGEST_STOP:
        problems.append(f"ended after {ended:.0f} s")
    return problems


def finished_study(folder: Path, kept: Path, cores: int) -> Bench:
    """Prepare a study, finish it, and keep a copy.

    Raises:
        RuntimeError: it does not finish.
    """
    study.prepare(folder)
    if study.start(folder, "all", "report", cores=cores).wait() != 0:
        raise RuntimeError(study.log_of(folder).read_text())
    jobs = study.read_jobs(folder)
    shutil.copytree(folder, kept, symlinks=True)
    return Bench(folder, kept, jobs, study.contents(folder), cores)


def plan(kinds: list[str], rounds: int, seed: int) -> list[tuple[int, str, str]]:
    """Number, kind and stage of all faults, in an order drawn at random."""
    pairs = [(kind, stage) for kind in kinds for stage in SLOTS] * rounds
    random.Random(seed).shuffle(pairs)
    return [(number, *pair) for number, pair in enumerate(pairs, 1)]


def impossible_kinds(*, disk_is_small: bool) -> dict[str, str]:
    """Kinds of faults that this machine does not allow, and why."""
    impossible = {}
    if not disk_is_small:
        impossible["disk"] = "no file system can be mounted (root alone may)"
    if not faults.can_limit_memory():
        impossible["memory of the machine"] = "no memory cgroup can be made (root alone may)"
    return impossible


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument(
        "--only", nargs="*", type=int, help="numbers of faults; others are left out"
    )
    parser.add_argument("--table", type=Path, help="a csv file for the results")
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory(prefix="sft-kills-") as temporary:
        place = Path(temporary)
        with faults.small_disk(place / "study", DISK) as is_small:
            impossible = impossible_kinds(disk_is_small=is_small)
            for kind, reason in impossible.items():
                print(f"left out: {kind}: {reason}", flush=True)
            kinds = [kind for kind in faults.KINDS if kind not in impossible]
            bench = finished_study(place / "study", place / "kept", options.cores)
            print(f"{len(bench.jobs)} jobs, {len(bench.expected)} files", flush=True)
            for number, kind, stage in plan(kinds, options.rounds, options.seed):
                if options.only and number not in options.only:
                    continue
                # Its own seed, so that it can be repeated alone.
                draw = random.Random(f"{options.seed} {number}")
                row = bench.try_fault(number, kind, stage, draw)
                if row is None:
                    print(f"{number} | {kind} | {stage} | hit nothing", flush=True)
                    continue
                rows.append(row)
                print(*asdict(rows[-1]).values(), sep=" | ", flush=True)
                if options.table:
                    write(rows, options.table)
    failed = [row for row in rows if row.outcome != "the same files"]
    print(f"{len(rows) - len(failed)} of {len(rows)} faults survived")
    return int(bool(failed))


def write(rows: list[Row], path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, list(asdict(rows[0])))
        table.writeheader()
        table.writerows(map(asdict, rows))


if __name__ == "__main__":
    sys.exit(main())
