"""A tiny study that can be finished, taken apart job by job and compared to the bit."""

import hashlib
import json
import os
import random
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from tiny_models import build_model, build_tokenizer
from tiny_study import CONFIG, ROOT, ROWS, environment

# More steps than the tests need, so that a training is caught in the middle of one.
TRAINING = {"steps": 12, "checkpoints": [0, 4, 8, 12]}
# Stages of a study: the rules of each. Every rule of the study is in one, or `stage_of` fails.
STAGES = {
    "data, models, prompts": ["data", "model", "prompts"],
    "fine-tuning": ["finetune"],
    "inference": ["inference", "inference_of_mask_embedding"],
    "extraction": [
        "log_odds",
        "log_odds_of_mask_embedding",
        "interactions",
        "joint",
        "joint_of_step",
        "ranges",
    ],
    "stability, sensitivity": [
        "stability",
        "sensitivity",
        "extraction_of_choice",
        "sensitivity_of_extraction",
        "sensitivity_of_own_extraction",
        "sensitivity_of_reading",
        "salience_sensitivity",
    ],
    "metrics, findings": ["dynamics", "readings", "metrics", "stages", "findings", "protocol"],
    "figures": [*(f"fig{number}" for number in range(1, 10)), "survival"],
    "tables": [
        *("stages_table", "metrics_table", "class_prediction_table", "faithfulness_table"),
        *(
            "sparsity_table",
            "strongest_table",
            "sensitivity_table",
            "verdicts_table",
            "paper_table",
        ),
    ],
    "verdict": ["verdict"],
    "report": ["report"],
}
STAGE_OF = {rule: stage for stage, rules in STAGES.items() for rule in rules}
# Of the time that it took, or of the day.
_TIMES = ("logs", "benchmarks")


@dataclass
class Job:
    """A job of a finished study, as Snakemake tells it; paths are relative to the study's folder."""

    rule: str
    log: str
    outputs: list[str] = field(default_factory=list)
    inputs: set[str] = field(default_factory=set)

    @property
    def store(self) -> list[str]:
        """Where its run keeps what it makes, for when it is asked for again."""
        stores = {"finetune": "training", "inference": "log_odds"}
        stores["inference_of_mask_embedding"] = stores["inference"]
        if self.rule not in stores:
            return []
        return ["/".join([*self.outputs[0].split("/")[:3], "store", stores[self.rule]])]

    def n_files(self, folder: Path) -> int:
        """Number of files and folders where it writes, finished or not."""
        whole = {path for path in self.outputs if not Path(path).suffix} | set(self.store)
        flat = {str(Path(path).parent) for path in self.outputs if Path(path).suffix}
        found = 0
        for place in whole | flat:
            for _, folders, files in os.walk(folder / place):
                found += len(folders) + len(files)
                if place in flat:
                    folders.clear()
        return found


def prepare(folder: Path) -> None:
    """Write the models, the data and the config of a study into a folder."""
    (folder / "lines.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    config = {**CONFIG, "models": {}, "finetune": {**CONFIG["finetune"], **TRAINING}}
    for name, settings in CONFIG["models"].items():
        place = folder / "models" / name
        build_model(name).save_pretrained(place)
        build_tokenizer(300, chat=name == "llama", bos=True).save_pretrained(place)
        config["models"][name] = {**settings, "source": f"path:models/{name}"}
    config["runs"]["gemma3-tiny"]["finetune"] = {"checkpoints": [0, TRAINING["steps"]]}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))


def start(folder: Path, *arguments: str, cores: int = 2) -> subprocess.Popen[bytes]:
    """Start Snakemake on a study, in a session of its own; what it says goes to ``log.txt`` beside it."""
    command = [sys.executable, "-m", "snakemake", "-s", str(ROOT / "Snakefile")]
    command += ["--configfile", "config.yaml", "--directory", str(folder), "--cores", str(cores)]
    with log_of(folder).open("wb") as log:
        return subprocess.Popen(
            [*command, *arguments],
            cwd=folder,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=environment(folder),
        )


def log_of(folder: Path) -> Path:
    """What Snakemake and its jobs said last; not in the study, whose disk may be full."""
    return folder.with_name(f"{folder.name}.log")


def read_jobs(folder: Path) -> list[Job]:
    """All jobs of a finished study, without those that compute nothing."""
    if start(folder, "all", "report", "--detailed-summary").wait() != 0:
        raise RuntimeError(log_of(folder).read_text())
    jobs: dict[str, Job] = {}
    for line in log_of(folder).read_text().splitlines():
        cells = line.split("\t")
        if len(cells) != 8 or cells[0] == "output_file":
            continue
        output, _, rule, log, inputs = cells[:5]
        job = jobs.setdefault(log, Job(rule, log))
        job.outputs.append(output)
        job.inputs.update(inputs.split(","))
    unknown = {job.rule for job in jobs.values()} - STAGE_OF.keys()
    if unknown:
        raise RuntimeError(f"name the stage of {sorted(unknown)} in STAGES")
    return list(jobs.values())


def path_from(
    first: Job, jobs: list[Job], draw: random.Random, longest: int
) -> tuple[Job, list[Job]]:
    """A job that follows another, or itself, with few jobs between; and all from the first to it."""
    following = _following(first, jobs)
    paths = []
    for last in following:
        path = [job for job in following if last in _following(job, jobs)]
        # A temporary output would stay if it were asked for by name.
        if len(path) <= longest and not last.rule.startswith("inference"):
            paths.append((last, path))
    return draw.choice(paths)


def _following(first: Job, jobs: list[Job]) -> list[Job]:
    """A job and all that need it, directly or not, each after those that it needs."""
    found, outputs = [first], set(first.outputs)
    while more := [job for job in jobs if job not in found and job.inputs & outputs]:
        found += more
        outputs.update(path for job in more for path in job.outputs)
    return found


def take_away(folder: Path, jobs: list[Job]) -> None:
    """Remove what some jobs made, and what their run keeps of it."""
    for job in jobs:
        for path in [folder / name for name in (*job.outputs, *job.store)]:
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)


def contents(folder: Path) -> dict[str, str]:
    """Path below the results to a digest of the file, of all that is not of the time; hidden ones too."""
    results, found = folder / "results", {}
    for path in sorted(results.rglob("*")):
        name = path.relative_to(results)
        if name.parts[0] in _TIMES or path.name == ".snakemake_timestamp":
            continue
        if path.is_symlink():
            found[str(name)] = os.readlink(path)
        elif path.is_file():
            content = path.read_bytes()
            if name.name == "report.html":
                content = _without_times(content)
            found[str(name)] = hashlib.sha256(content).hexdigest()
    return found


def _without_times(page: bytes) -> bytes:
    """A page without its date and the cells of what the jobs took."""
    page = re.sub(rb"\d{4}-\d\d-\d\d \d\d:\d\d UTC", b"", page)
    return re.sub(rb"<h3>Time of the stages</h3>.*?</table>", b"", page, flags=re.DOTALL)


def restore(folder: Path, kept: Path) -> None:
    """Make a folder what its copy is; the folder itself stays, since a file system may be mounted there."""
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    shutil.copytree(kept, folder, symlinks=True, dirs_exist_ok=True)
