"""The masked inference of one job: some samples of a run, at one checkpoint after the other."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from sft_interactions import tables
from sft_interactions.files import content_digest, digest_of_modules
from sft_interactions.masking.checkpoint import Checkpoint
from sft_interactions.masking.log_odds import MaskedPrompt
from sft_interactions.masking.parts import Parts, fingerprint
from sft_interactions.models.checkpoint_files import files_of
from sft_interactions.models.layers import input_embeddings
from sft_interactions.models.loading import load_base, load_checkpoint
from sft_interactions.models.positions import check_vocabulary

# The modules that log-odds are computed by: this one and what it imports of the package, directly or not.
# A sample that was kept is evaluated again if one of them has changed.
MODULES = (
    "files",
    "orphans",
    "shortage",
    "tables",
    "version",
    "masking.checkpoint",
    "masking.devices",
    "masking.gpus",
    "masking.job",
    "masking.log_odds",
    "masking.mask_embedding",
    "masking.memory",
    "masking.parts",
    "masking.prefix_tree",
    "models.adapters",
    "models.bin_files",
    "models.checkpoint_files",
    "models.layers",
    "models.loading",
    "models.packed_linear",
    "models.positions",
)
# Libraries whose version may change the last digits of log-odds.
LIBRARIES = ("peft", "torch", "transformers")
# Of the config's ``inference``, what log-odds depend on.
SETTINGS = ("dtype", "method", "batch_tokens", "memory_gb")


def read_prompts(path: str | Path) -> dict[str, MaskedPrompt]:
    """Prompts of the table ``prompts.parquet``, by sample id, in the order of the table."""
    return {
        row["sample_id"]: MaskedPrompt(
            row["token_ids"], row["player_of_token"], row["target_token_ids"]
        )
        for row in tables.read(path, tables.PROMPTS).iter_rows(named=True)
    }


@dataclass
class Progress:
    """What a job has done since its start.

    Attributes:
        maskings: maskings that are done, those of samples that were kept included.
        kept_maskings: maskings of samples that an earlier job had kept.
        samples: samples that are done, counted anew at every checkpoint.
    """

    maskings: int = 0
    kept_maskings: int = 0
    samples: int = 0


class InferenceJob:
    """Log-odds of some samples of a run at some of its checkpoints.

    Every sample is kept as soon as it is done, and any later job that would compute the same numbers takes
    it from there. The weights of a checkpoint are loaded once, with the first sample that is not kept;
    those of the model before SFT are held where several checkpoints need them.

    Args:
        model_dir: folder of the model before SFT.
        checkpoints: step to folder of a checkpoint, in the order of evaluation.
        prompts: all prompts of the run by sample id. The rounding error is measured on the first one,
            so that it does not depend on how samples are divided into jobs. The longest one must be
            exact too: some models read long texts in another way.
        shard: which part of the samples this job evaluates, of ``settings["shards"]``, from 0 on.
        settings: ``inference`` of the config.
        mask_embedding: arguments of :func:`~sft_interactions.masking.mask_embedding.make_mask_embedding`
            beside the model.
        device: where to evaluate.
        threads: CPU threads, which the last digits depend on.
        parts: where samples are kept.
    """

    def __init__(
        self,
        *,
        model_dir: str | Path,
        checkpoints: Mapping[int, Path],
        prompts: Mapping[str, MaskedPrompt],
        shard: int,
        settings: Mapping[str, Any],
        mask_embedding: Mapping[str, Any],
        device: torch.device,
        threads: int,
        parts: Parts,
    ) -> None:
        self.model_dir, self.checkpoints = model_dir, checkpoints
        self.settings, self.mask_embedding = settings, mask_embedding
        self.device, self.threads = device, threads
        self.parts = parts
        self.measured_sample = next(iter(prompts))
        self.longest_sample = max(prompts, key=lambda sample_id: prompts[sample_id].n_tokens)
        own = list(prompts)[shard :: settings["shards"]]
        self.prompts = {sample_id: prompts[sample_id] for sample_id in own}
        self._prompts_of_run = prompts
        self.n_samples = len(checkpoints) * len(own)
        self.n_maskings = len(checkpoints) * sum(2**p.n for p in self.prompts.values())
        self.progress = Progress()
        self._loaded_base: PreTrainedModel | None = None
        self._keys_of_run: dict[Path, dict[str, str]] = {}
        self._code = digest_of_modules(MODULES)
        self._model_digest = content_digest(files_of(model_dir))

    def evaluate(
        self, report: Callable[[Progress], None] = lambda _: None
    ) -> Iterator[tuple[int, pl.DataFrame, dict[str, str]]]:
        """Evaluate one checkpoint after the other.

        Args:
            report: told how far the job is, after every forward pass and after every sample.

        Yields:
            The step of a checkpoint; rows of the table of log-odds of this job's samples; and the metadata
            that belongs to them (:data:`~sft_interactions.tables.LOG_ODDS_METADATA`).

        Raises:
            ValueError: a checkpoint cannot be loaded or does not fit in memory.
            NotBranchableError: see :meth:`Checkpoint.log_odds`.
            PrecisionError: see :meth:`Checkpoint.error`.
        """
        for step, folder in self.checkpoints.items():
            yield step, *self._evaluate_checkpoint(folder, report)

    def inputs_digest(self, step: int) -> str:
        """Digest of all that the log-odds of a checkpoint depend on, the same in every shard.

        Returns:
            16 hexadecimal digits.
        """
        return fingerprint(samples=self._keys(self.checkpoints[step]))[:16]

    def _evaluate_checkpoint(
        self, folder: Path, report: Callable[[Progress], None]
    ) -> tuple[pl.DataFrame, dict[str, str]]:
        def count(n_maskings: int) -> None:
            self.progress.maskings += n_maskings
            report(self.progress)

        checkpoint: Checkpoint | None = None
        frames = [pl.DataFrame(schema=tables.LOG_ODDS.columns)]
        about: dict[str, str] = {}
        keys = self._keys(folder)
        for sample_id in self.prompts:
            key = keys[sample_id]
            if self.parts.holds(key):
                n_maskings = 2 ** self.prompts[sample_id].n
                self.progress.maskings += n_maskings
                self.progress.kept_maskings += n_maskings
            else:
                checkpoint = checkpoint or self._load(folder)
                self.parts.write(key, sample_id, *self._log_odds(checkpoint, sample_id, count))
            rows, about_sample = self.parts.read(key)
            frames.append(rows)
            about |= about_sample
            self.progress.samples += 1
            report(self.progress)
        return pl.concat(frames), about

    def _load(self, folder: Path) -> Checkpoint:
        base = self._base if len(self.checkpoints) > 1 else None
        model = load_checkpoint(self.model_dir, folder, torch.device("cpu"), base=base)
        self._check_vocabulary(input_embeddings(model).num_embeddings, folder)
        return Checkpoint(model, self.device, self.settings, self.mask_embedding)

    def _check_vocabulary(self, size: int, folder: Path) -> None:
        for sample_id, prompt in self.prompts.items():
            check_vocabulary([*prompt.token_ids, *prompt.target_token_ids], size, sample_id, folder)

    def _base(self) -> PreTrainedModel:
        """The model before SFT, loaded when it is first needed."""
        if self._loaded_base is None:
            self._loaded_base = load_base(self.model_dir)
        return self._loaded_base

    def _log_odds(
        self, checkpoint: Checkpoint, sample_id: str, count: Callable[[int], None]
    ) -> tuple[NDArray[np.float32], dict[str, str]]:
        """Log-odds (2^n,) of a sample, and the metadata to keep with them."""
        prompt = self.prompts[sample_id]
        values = checkpoint.log_odds(prompt, count)
        about = {"dtype": self.settings["dtype"], "method": checkpoint.method}
        if self._is_measured(sample_id):
            error = checkpoint.error(prompt, values)
            if sample_id == self.measured_sample:
                about |= error
            if sample_id == self.longest_sample:
                about["longest_sample_error_max"] = error["log_odds_error_max"]
        return values, about

    def _keys(self, folder: Path) -> dict[str, str]:
        """Fingerprint of every sample of the run at the checkpoint in ``folder``."""
        if folder not in self._keys_of_run:
            self._keys_of_run[folder] = self._make_keys(folder)
        return self._keys_of_run[folder]

    def _make_keys(self, folder: Path) -> dict[str, str]:
        depends_on = {
            "code": self._code,
            "libraries": [version(library) for library in LIBRARIES],
            "model": self._model_digest,
            "checkpoint": content_digest(files_of(folder)),
            "mask_embedding": dict(self.mask_embedding),
            "settings": {key: self.settings[key] for key in SETTINGS},
            "device": [self.device.type, self.threads],
        }
        return {
            sample_id: fingerprint(
                sample_id=sample_id,  # kept with the log-odds; two samples may have the same tokens
                prompt=[
                    list(prompt.token_ids),
                    list(prompt.player_of_token),
                    list(prompt.target_token_ids),
                ],
                # A sample whose error was held against another limit must be measured again.
                max_error=self.settings["max_error"] if self._is_measured(sample_id) else None,
                **depends_on,
            )
            for sample_id, prompt in self._prompts_of_run.items()
        }

    def _is_measured(self, sample_id: str) -> bool:
        return sample_id in (self.measured_sample, self.longest_sample)
