"""Supervised fine-tuning, of LoRA adapters or of all weights, keeping checkpoints at given steps.

Imports torch, transformers and peft only.
"""

import logging
import math
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from torch import nn
from transformers import (
    PreTrainedModel,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
    set_seed,
)

from sft_interactions.files import link, write_checksums
from sft_interactions.models.adapters import experts_are_not_missed, targets_ends, untie_if
from sft_interactions.models.examples import Example, ResponseCollator, parts_of_batch
from sft_interactions.models.loading import load_base, multiply_head_once
from sft_interactions.models.losses import mean_response_loss
from sft_interactions.models.packed_linear import PackedLinear, can_pack
from sft_interactions.models.training_store import Rows, TrainingStore, fingerprint
from sft_interactions.orphans import PARTIAL


class _Recorder(TrainerCallback):
    """Keeps the log; saves the checkpoints and measures their validation loss."""

    def __init__(
        self,
        steps: Sequence[int],
        save: Callable[[int], None],
        validation_loss: Callable[[], float],
        progress: Callable[[int], None] | None,
        store: TrainingStore | None,
    ) -> None:
        self.steps = frozenset(steps)
        self.save = save
        self.validation_loss = validation_loss
        self.progress = progress
        self.store = store
        self.rows: Rows = {}

    def _measure(self, step: int) -> None:
        loss = _finite(self.validation_loss(), "validation", step)
        self.rows.setdefault(step, {})["validation_loss"] = loss

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        if 0 not in self.rows:
            self._measure(0)
            if 0 in self.steps:
                self.save(0)

    def on_step_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        if self.progress:
            self.progress(state.global_step)
        if state.global_step in self.steps:
            self.save(state.global_step)
            self._measure(state.global_step)
            control.should_save = self.store is not None and state.global_step < args.max_steps

    def on_save(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        if self.store is not None:
            self.store.note(state.global_step, self.rows)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        row = self.rows.setdefault(state.global_step, {})
        logs = logs or {}
        if "loss" in logs:
            row["train_loss"] = _finite(logs["loss"], "training", state.global_step)
            row["learning_rate"] = float(logs["learning_rate"])


def _finite(loss: float, which: str, step: int) -> float:
    if not math.isfinite(loss):
        raise ValueError(
            f"the training diverged: the {which} loss at step {step} is {float(loss)}; lower "
            "finetune.learning_rate"
        )
    return float(loss)


class _Trainer(Trainer):
    """Saves weights as the checkpoints have them; on a CPU it takes a batch in parts of similar lengths."""

    def training_step(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor:
        # A GPU is faster with one large batch. A loss is a sum over parts if it is divided by the tokens of
        # the whole batch, and has nothing besides that is one of a batch.
        is_sum = (
            self.model_accepts_loss_kwargs
            and num_items_in_batch is not None
            and not getattr(getattr(model, "config", None), "output_router_logits", False)
        )
        parts = parts_of_batch(inputs) if self.args.use_cpu and is_sum else [inputs]
        losses = [
            super(_Trainer, self).training_step(model, one, num_items_in_batch) for one in parts
        ]
        return torch.stack(losses).sum()

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        _save_weights(self.model, str(output_dir))


def _save_weights(model: Any, folder: str) -> None:
    # Embeddings are never trained; looking for their original would ask the hub.
    of_adapters = {"save_embedding_layers": False} if isinstance(model, PeftModel) else {}
    model.save_pretrained(folder, **of_adapters)


def add_adapters(model: PreTrainedModel, settings: Mapping[str, Any], *, name: str) -> PeftModel:
    """Add LoRA adapters to a model, the only weights that are trained then.

    Args:
        settings: the config's ``finetune`` block.
        name: of the base model, which the adapter's folder tells; not a path of this machine.

    Raises:
        ValueError: ``lora_target_modules`` has a name of no module, or of one that can have no adapter.
    """
    targets = settings["lora_target_modules"]
    if targets != "all-linear":
        _check_targets(model, targets)
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=settings["lora_rank"],
        lora_alpha=settings["lora_alpha"],
        lora_dropout=settings["lora_dropout"],
        target_modules=targets,
    )
    untie_if(model, targets_ends(model, config))
    try:
        with experts_are_not_missed():
            adapted = get_peft_model(model, config)
    except ValueError as error:
        first = str(error).partition("\n")[0]
        raise ValueError(
            f"finetune.lora_target_modules: PEFT cannot add adapters to them ({first}); name linear layers"
        ) from error
    own: Any = adapted.peft_config["default"]
    own.base_model_name_or_path = name
    # PEFT makes sets of them, whose order in the file would depend on PYTHONHASHSEED.
    own.target_modules = sorted(own.target_modules or [])
    if own.target_parameters:  # experts of a layer, which are no modules
        own.target_parameters = sorted(own.target_parameters)
    return adapted


def _check_targets(model: PreTrainedModel, targets: Sequence[str]) -> None:
    """Check that each name is one of a module; PEFT leaves out those that are none, if any other is one."""
    modules = [name for name, _ in model.named_modules()]
    for target in targets:
        if not any(name == target or name.endswith(f".{target}") for name in modules):
            linear = {
                name.rpartition(".")[2]
                for name, module in model.named_modules()
                if isinstance(module, nn.Linear)
            }
            raise ValueError(
                f"finetune.lora_target_modules: the model has no module {target!r}; name some of "
                f"{', '.join(sorted(linear)) or 'its modules'}, or all-linear"
            )


def pack_frozen_layers(model: PeftModel) -> None:
    """Pack the weights that LoRA adapters are added to, for faster products on a CPU.

    See :class:`~sft_interactions.models.packed_linear.PackedLinear`.
    """
    for layer in model.modules():
        if isinstance(layer, LoraLayer) and can_pack(layer.base_layer):
            layer.base_layer = PackedLinear(layer.base_layer, backward=True)


def finetune(
    model_dir: str | Path,
    train: Sequence[Example],
    validation: Sequence[Example],
    settings: Mapping[str, Any],
    checkpoints_dir: str | Path,
    *,
    pad_id: int,
    seed: int,
    device: torch.device,
    store_dir: str | Path | None = None,
    progress: Callable[[int], None] | None = None,
) -> list[dict[str, float | int | None]]:
    """Fine-tune on the response tokens and keep a checkpoint at every listed step.

    With ``method: lora`` a checkpoint is a PEFT adapter; with ``full`` it is the whole model in float32,
    step 0 excepted, which is a link to ``model_dir``. Each is written under a temporary name and then
    renamed, so a folder ``step-{step}`` is always whole.

    Args:
        settings: the config's ``finetune`` block.
        checkpoints_dir: gets one folder ``step-{step}`` per step of ``settings["checkpoints"]``.
        store_dir: a folder that keeps trainings (:mod:`~sft_interactions.models.training_store`).
            The same training, started again after it was killed, goes on from its last checkpoint and gives
            the same weights to the bit; once it has ended it is taken from there, also with fewer
            checkpoints. By default nothing is kept.
        progress: called with the number of optimizer steps done.

    Returns:
        Rows (step, train_loss, validation_loss or None, learning_rate) sorted by step, losses in nats
        per response token. ``train_loss`` is that of the batch before the step's update; at step 0
        that of the first batch, which the untouched model is evaluated on.

    Raises:
        ValueError: the training diverged, so that a loss is not finite; or as :func:`add_adapters`.
    """
    set_seed(seed)
    checkpoints_dir = Path(checkpoints_dir)
    steps = settings["checkpoints"]
    store = None
    if store_dir is not None:
        key = fingerprint(model_dir, train, validation, settings, seed, device)
        store = TrainingStore(Path(store_dir), key, steps)
    kept = store.restore(checkpoints_dir) if store else None
    if kept and kept.is_finished:
        logging.getLogger(__name__).info(
            "this training is done already; its checkpoints are those of %s", kept.folder
        )
        if progress:
            progress(settings["steps"])
        return _rows(kept.rows, steps)
    if kept:
        logging.getLogger(__name__).info(
            "going on with the training that ended after step %s", kept.step
        )
    base = load_base(model_dir)
    model: PreTrainedModel | PeftModel = base
    is_full = settings["method"] == "full"
    if not is_full:
        model = adapted = add_adapters(base, settings, name=Path(model_dir).name)
        if device.type == "cpu":
            pack_frozen_layers(adapted)
    multiply_head_once(model)

    def save(step: int) -> None:
        target = checkpoints_dir / f"step-{step}"
        temporary = checkpoints_dir / f"{PARTIAL}{os.getpid()}-step-{step}"
        shutil.rmtree(temporary, ignore_errors=True)
        if is_full and step == 0:
            link(target, os.path.relpath(model_dir, checkpoints_dir))
        else:
            _save_weights(model, str(temporary))
            write_checksums(temporary)
            temporary.replace(target)
        if store:
            store.keep(target, step)

    def validation_loss() -> float:
        return mean_response_loss(
            model, validation, pad_id=pad_id, batch_size=settings["batch_size"]
        )

    recorder = _Recorder(steps, save, validation_loss, progress, store)
    if kept:
        recorder.rows = kept.rows
    trainer = _Trainer(
        model=model,
        args=TrainingArguments(
            output_dir=str(store.own if store else checkpoints_dir),
            max_steps=settings["steps"],
            per_device_train_batch_size=settings["batch_size"],
            gradient_accumulation_steps=settings["gradient_accumulation"],
            learning_rate=settings["learning_rate"],
            lr_scheduler_type=settings["schedule"],
            warmup_steps=round(settings["warmup_ratio"] * settings["steps"]),
            weight_decay=settings["weight_decay"],
            logging_steps=1,
            # Else a loss that is not a number is logged as 0.
            logging_nan_inf_filter=False,
            eval_strategy="no",
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            remove_unused_columns=False,
            label_names=["labels"],
            seed=seed,
            data_seed=seed,
            use_cpu=device.type == "cpu",
            dataloader_pin_memory=device.type == "cuda",
        ),
        data_collator=ResponseCollator(pad_id),
        train_dataset=list(train),
        callbacks=[recorder],
    )
    # Prints every log entry; they are kept in the table.
    trainer.remove_callback(PrinterCallback)
    trainer.train(resume_from_checkpoint=str(kept.trainer) if kept else None)
    if store:
        store.note(settings["steps"], recorder.rows, is_finished=True)
    return _rows(recorder.rows, steps)


def _rows(
    logs: Mapping[int, Mapping[str, float | None]], checkpoints: Sequence[int]
) -> list[dict[str, float | int | None]]:
    """Rows of the training table; what was not logged at a step is that of the first batch, or None.

    A training with more checkpoints has measured the validation loss at them too.
    """
    first = min(step for step, row in logs.items() if "train_loss" in row)
    rows = []
    for step in sorted(logs):
        row = {"train_loss": logs[first]["train_loss"], "learning_rate": 0.0, **logs[step]}
        if step not in (0, *checkpoints):
            row["validation_loss"] = None
        rows.append({"step": step, "validation_loss": None, **row})
    return rows
