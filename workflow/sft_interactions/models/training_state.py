"""What a training needs to go on after it was killed, as if nothing had happened.

Imports torch, transformers and peft only.
"""

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import peft
import torch
import transformers

from sft_interactions.files import content_digest
from sft_interactions.models.examples import Example

Rows = dict[int, dict[str, float | None]]
_NOTE = "state.json"


def fingerprint(
    model_dir: str | Path,
    train: Sequence[Example],
    validation: Sequence[Example],
    settings: Mapping[str, Any],
    seed: int,
    device: torch.device,
) -> str:
    """Digest of all that the numbers of a training depend on, 64 hexadecimal digits."""
    depends_on = [
        content_digest([model_dir]),
        train,
        validation,
        settings,
        seed,
        device.type,
        torch.get_num_threads(),
        *(library.__version__ for library in (torch, transformers, peft)),
    ]
    text = json.dumps(depends_on, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass
class TrainingState:
    """The state of a training at its last checkpoint, in a folder that outlives a killed job.

    The folder holds one folder ``checkpoint-{step}`` of the trainer (weights, optimizer, schedule, random
    numbers), the checkpoints so far, and a note that is written last.

    Attributes:
        folder: where it is kept.
        fingerprint: of the training; a state of another one is not gone on with.
    """

    folder: Path
    fingerprint: str

    @property
    def _kept(self) -> Path:
        return self.folder / "checkpoints"

    def restore(self, checkpoints_dir: Path) -> tuple[Path, Rows] | None:
        """Put the checkpoints so far back, and tell where the trainer goes on.

        Returns:
            The trainer's folder, and the rows of the training table so far; None for a new training.
        """
        found = self._read()
        if found is None:
            shutil.rmtree(self.folder, ignore_errors=True)
            return None
        trainer, steps, rows = found
        for step in steps:
            _copy(self._kept / f"step-{step}", checkpoints_dir / f"step-{step}")
        last = trainer.name.partition("-")[2]
        logging.getLogger(__name__).info(
            "going on with the training that ended after step %s", last
        )
        return trainer, rows

    def _read(self) -> tuple[Path, list[int], Rows] | None:
        try:
            note = json.loads((self.folder / _NOTE).read_text("utf-8"))
        except (OSError, ValueError):
            return None
        trainer = self.folder / f"checkpoint-{note['step']}"
        steps = note["checkpoints"]
        # A link leads somewhere only where it is put back.
        kept = [self._kept / f"step-{step}" for step in steps]
        whole = trainer.is_dir() and all(path.is_symlink() or path.is_dir() for path in kept)
        if note["fingerprint"] != self.fingerprint or not whole:
            return None
        return trainer, steps, {int(step): row for step, row in note["rows"].items()}

    def keep(self, checkpoint: Path, step: int) -> None:
        """Keep a checkpoint ``step-{step}``."""
        target = self._kept / f"step-{step}"
        shutil.rmtree(target, ignore_errors=True)
        _copy(checkpoint, target)

    def note(self, step: int, rows: Rows) -> None:
        """Note that all of a step is saved, and remove the trainer's folders of earlier steps."""
        steps = sorted(int(path.name.partition("-")[2]) for path in self._kept.glob("step-*"))
        content = {
            "fingerprint": self.fingerprint,
            "step": step,
            "checkpoints": [kept for kept in steps if kept <= step],
            "rows": rows,
        }
        temporary = self.folder / f".{_NOTE}"
        temporary.write_text(json.dumps(content), "utf-8")
        temporary.replace(self.folder / _NOTE)
        for path in self.folder.glob("checkpoint-*"):
            if path.name != f"checkpoint-{step}":
                shutil.rmtree(path, ignore_errors=True)

    def remove(self) -> None:
        """Remove the state of a training that has ended."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _copy(source: Path, target: Path) -> None:
    """Copy a folder by hard links where the file system has them, whole or not at all."""
    if source.is_symlink():
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        target.symlink_to(os.readlink(source))
        return
    temporary = target.with_name(f".{target.name}.partial")
    shutil.rmtree(temporary, ignore_errors=True)

    def link(one: str, other: str) -> None:
        try:
            os.link(one, other)
        except OSError:
            shutil.copyfile(one, other)

    shutil.copytree(source, temporary, copy_function=link, symlinks=True)
    temporary.replace(target)
