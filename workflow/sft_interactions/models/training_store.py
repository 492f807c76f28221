"""Trainings that are done, and what one that was killed needs to go on as if nothing had happened.

Imports torch, transformers and peft only.
"""

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from sft_interactions.files import (
    CHECKSUMS,
    check_checksums,
    content_digest,
    digest_of_modules,
    write_checksums,
)
from sft_interactions.models.checkpoint_files import files_of
from sft_interactions.models.examples import Example
from sft_interactions.orphans import PARTIAL

Rows = dict[int, dict[str, float | None]]

# The modules that a training is computed by: models.finetuning and what it imports of the package, directly
# or not, but for those that make examples, which are compared themselves. A training that was kept is not
# taken for one of other code.
MODULES = (
    "files",
    "models.adapters",
    "models.bin_files",
    "models.checkpoint_files",
    "models.examples",
    "models.finetuning",
    "models.layers",
    "models.loading",
    "models.losses",
    "models.packed_linear",
    "models.training_store",
    "orphans",
)
# Libraries whose version may change the last digits of weights.
LIBRARIES = ("accelerate", "peft", "torch", "transformers")
_NOTE = "state.json"


def fingerprint(
    model_dir: str | Path,
    train: Sequence[Example],
    validation: Sequence[Example],
    settings: Mapping[str, Any],
    seed: int,
    device: torch.device,
) -> str:
    """Digest of all that the numbers of a training depend on, 64 hexadecimal digits.

    The list of checkpoints is left out: saving weights, and measuring their loss, changes none.
    """
    depends_on = [
        digest_of_modules(MODULES),
        content_digest(files_of(model_dir)),
        train,
        validation,
        {key: value for key, value in settings.items() if key != "checkpoints"},
        seed,
        device.type,
        torch.get_num_threads(),
        *map(version, LIBRARIES),
    ]
    return _digest(depends_on)


def _digest(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


@dataclass
class Kept:
    """A training that was found, in a folder of a :class:`TrainingStore`.

    Attributes:
        folder: where it is kept.
        is_finished: whether it has ended.
        step: the last step that all is saved of.
        checkpoints: steps whose checkpoints are there.
        rows: of the training table, of all steps up to ``step``.
    """

    folder: Path
    is_finished: bool
    step: int
    checkpoints: list[int]
    rows: Rows

    @property
    def trainer(self) -> Path:
        """What the trainer saved: weights, optimizer, schedule, random numbers; removed at the end."""
        return self.folder / f"checkpoint-{self.step}"

    def checkpoint(self, step: int) -> Path:
        """Folder of a checkpoint, or a link that leads somewhere only where it is put back."""
        return self.folder / "checkpoints" / f"step-{step}"

    def has(self, steps: Sequence[int]) -> bool:
        """Whether a training that asks for these checkpoints can take this one, or go on from it."""
        wanted = [step for step in steps if self.is_finished or step <= self.step]
        return set(wanted) <= set(self.checkpoints)


@dataclass
class TrainingStore:
    """Trainings of a run, each in a folder named after all that it depends on; they outlive its outputs.

    A folder holds the checkpoints so far (hard links to those of the run, where the file system has them),
    a note that is written last, and until the training ends one folder ``checkpoint-{step}`` of the
    trainer.

    Attributes:
        folder: where trainings are kept.
        fingerprint: of the training that is asked for.
        steps: the checkpoints that are asked for.
    """

    folder: Path
    fingerprint: str
    steps: Sequence[int]

    @property
    def own(self) -> Path:
        """Folder of the training that is asked for."""
        return self.folder / _digest([self.fingerprint, sorted(self.steps)])[:32]

    def restore(self, checkpoints_dir: Path) -> Kept | None:
        """Put checkpoints back that are there, of a training that has ended or got on furthest.

        What was damaged is computed anew, with a warning.

        Returns:
            The training; None if a new one must begin.
        """
        while found := self._find():
            try:
                wanted = [step for step in self.steps if step in found.checkpoints]
                self._check(found, wanted)
            except ValueError as error:
                place, _, problem = str(error).partition(": ")
                logging.getLogger(__name__).warning(
                    "%s: %s; it is computed anew", place, problem.partition(";")[0]
                )
                continue
            if not found.is_finished and found.folder != self.own:
                shutil.rmtree(self.own, ignore_errors=True)
                _copy(found.folder, self.own)
                found.folder = self.own
            for step in wanted:
                _copy(found.checkpoint(step), checkpoints_dir / f"step-{step}")
            return found
        shutil.rmtree(self.own, ignore_errors=True)
        return None

    def _find(self) -> Kept | None:
        usable = [one for one in self._read_all() if one.has(self.steps)]
        # Of those that are as far, that of the very list.
        return max(
            usable,
            key=lambda one: (one.is_finished, one.step, one.folder == self.own, one.folder.name),
            default=None,
        )

    def _read_all(self) -> Iterator[Kept]:
        for path in self.folder.glob(f"*/{_NOTE}"):
            note = _read_note(path)
            if note is None or note["fingerprint"] != self.fingerprint:
                continue
            kept = Kept(
                path.parent,
                note["is_finished"],
                note["step"],
                note["checkpoints"],
                {int(step): row for step, row in note["rows"].items()},
            )
            folders = {step: kept.checkpoint(step) for step in kept.checkpoints}
            kept.checkpoints = [
                step for step, place in folders.items() if place.is_symlink() or place.is_dir()
            ]
            if kept.is_finished or kept.trainer.is_dir():
                yield kept

    def _check(self, found: Kept, steps: Sequence[int]) -> None:
        """Compare what is about to be used with its checksums, and remove what is damaged.

        Raises:
            ValueError: a folder is not what was written.
        """
        folders = [found.checkpoint(step) for step in steps]
        if not found.is_finished:
            folders.append(found.trainer)
        for folder in folders:
            if folder.is_symlink():
                continue
            try:
                if not (folder / CHECKSUMS).is_file():
                    raise ValueError(f"{folder / CHECKSUMS}: is missing")
                check_checksums(folder)
            except ValueError:
                shutil.rmtree(folder)
                raise

    def keep(self, checkpoint: Path, step: int) -> None:
        """Keep a checkpoint ``step-{step}``."""
        target = self.own / "checkpoints" / f"step-{step}"
        shutil.rmtree(target, ignore_errors=True)
        _copy(checkpoint, target)

    def note(self, step: int, rows: Rows, *, is_finished: bool = False) -> None:
        """Note that all of a step is saved, and remove the trainer's folders of earlier steps."""
        trainer = self.own / f"checkpoint-{step}"
        if not is_finished:
            write_checksums(trainer)
        kept = (self.own / "checkpoints").glob("step-*")
        steps = sorted(int(path.name.partition("-")[2]) for path in kept)
        content = {
            "fingerprint": self.fingerprint,
            "is_finished": is_finished,
            "step": step,
            "checkpoints": [one for one in steps if one <= step],
            "rows": {str(one): row for one, row in rows.items()},
        }
        temporary = self.own / f"{PARTIAL}{os.getpid()}-{_NOTE}"
        temporary.write_text(json.dumps({**content, "digest": _digest(content)}), "utf-8")
        temporary.replace(self.own / _NOTE)
        for path in self.own.glob("checkpoint-*"):
            if is_finished or path != trainer:
                shutil.rmtree(path, ignore_errors=True)


def _read_note(path: Path) -> dict[str, Any] | None:
    """A note that is whole; None for one that is cut off, damaged or of an older version."""
    try:
        content: dict[str, Any] = json.loads(path.read_text("utf-8"))
        written = content.pop("digest", None)
    except (OSError, ValueError, AttributeError):
        return None
    return content if written == _digest(content) else None


def _copy(source: Path, target: Path) -> None:
    """Copy a folder by hard links where the file system has them, whole or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_symlink():
        target.unlink(missing_ok=True)
        target.symlink_to(os.readlink(source))
        return
    temporary = target.with_name(f"{PARTIAL}{os.getpid()}-{target.name}")
    shutil.rmtree(temporary, ignore_errors=True)

    def link(one: str, other: str) -> None:
        try:
            os.link(one, other)
        except OSError:
            shutil.copyfile(one, other)

    shutil.copytree(source, temporary, copy_function=link, symlinks=True)
    temporary.replace(target)
