"""Kill a tiny study at random moments; the same command must finish it, with the same tables to the bit.

    python tests/kills/run.py --kills 10 --seed 0

Kinds, in turn: SIGKILL of all processes, of Snakemake alone, of one of its jobs alone; SIGTERM and SIGINT
of Snakemake. After each the same command is given again, once; nothing is cleaned by hand.
"""

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import yaml

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS), str(TESTS.parent / "workflow")]

from tiny_models import build_model, build_tokenizer  # noqa: E402
from tiny_study import CONFIG, ROOT, ROWS  # noqa: E402

TARGETS = ("results/findings.parquet", "results/figures/fig2.png", "results/tables/metrics.csv")
KINDS = ("all", "snakemake", "job", "SIGTERM", "SIGINT")


def prepare(folder: Path) -> None:
    """Write the models, the data and the config of a study into a folder."""
    folder.mkdir(parents=True)
    (folder / "lines.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    config = {**CONFIG, "models": {}}
    for name, settings in CONFIG["models"].items():
        place = folder / "models" / name
        build_model(name).save_pretrained(place)
        build_tokenizer(300, chat=name == "llama", bos=True).save_pretrained(place)
        config["models"][name] = {**settings, "source": f"path:models/{name}"}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))


def start(folder: Path) -> subprocess.Popen[bytes]:
    """Start the study, in a session of its own."""
    command = [sys.executable, "-m", "snakemake", "-s", str(ROOT / "Snakefile"), "--cores", "2"]
    command += ["--configfile", "config.yaml", "--directory", str(folder), *TARGETS]
    log = (folder / "log.txt").open("ab")
    with log:
        return subprocess.Popen(
            command,
            cwd=folder,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        )


def processes_of(session: int) -> list[psutil.Process]:
    """Processes of a session that are at work."""
    found = []
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == session and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.NoSuchProcess, ProcessLookupError):
            continue
    return found


def kill(kind: str, run: subprocess.Popen[bytes], draw: random.Random) -> float:
    """Kill as the kind says, and wait until all processes have ended.

    Returns:
        Seconds until then.
    """
    begun = time.monotonic()
    if kind == "all":
        for process in processes_of(run.pid):
            process.kill()
    elif kind == "snakemake":
        run.kill()
    elif kind == "job":
        jobs = [process for process in processes_of(run.pid) if process.pid != run.pid]
        if jobs:
            draw.choice(jobs).kill()
    else:
        run.send_signal(signal.Signals[kind])
    run.wait()
    while processes_of(run.pid):
        time.sleep(0.1)
    return time.monotonic() - begun


def contents(folder: Path) -> dict[str, str]:
    """Digest of every file of the results that a user reads."""
    results = folder / "results"
    of_the_time = {results / "logs", results / "benchmarks"}
    return {
        path.relative_to(results).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(results.rglob("*"))
        if path.is_file() and not path.is_symlink() and path.name != ".snakemake_timestamp"
        if not of_the_time & set(path.parents)
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    draw = random.Random(options.seed)
    failed = 0
    with tempfile.TemporaryDirectory(prefix="sft-kills-") as temporary:
        # Always in the same place, since tables and adapters know where they come from.
        study, kept = Path(temporary) / "study", Path(temporary) / "kept"
        prepare(study)
        shutil.copytree(study, kept)
        begun = time.monotonic()
        if start(study).wait() != 0:
            print((study / "log.txt").read_text()[-3000:])
            return 1
        lasts = time.monotonic() - begun
        expected = contents(study)
        print(f"without a kill: {lasts:.0f} s, {len(expected)} files", flush=True)
        for number in range(options.kills):
            kind = KINDS[number % len(KINDS)]
            moment = draw.uniform(0, lasts)
            shutil.rmtree(study)
            shutil.copytree(kept, study)
            run = start(study)
            try:
                run.wait(moment)
            except subprocess.TimeoutExpired:
                waited = kill(kind, run, draw)
            else:
                waited = 0.0  # it was faster this time
            code = start(study).wait()
            found = contents(study)
            differ = sorted(
                name
                for name in expected.keys() | found.keys()
                if expected.get(name) != found.get(name)
            )
            good = code == 0 and not differ
            failed += not good
            print(
                f"{number}: {kind} at {moment:.1f} s, all ended after {waited:.1f} s: "
                + ("the same files" if good else f"status {code}, other files: {differ[:5]}"),
                flush=True,
            )
            if code != 0:
                print((study / "log.txt").read_text()[-2000:], flush=True)
    print(f"{options.kills - failed} of {options.kills} kills survived")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
