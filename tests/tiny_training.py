"""A short fine-tuning of a tiny model with transformers' own Trainer."""

from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from tiny_models import build_model
from torch import nn
from transformers import PrinterCallback, Trainer, TrainingArguments, set_seed

TEXTS = (
    "I think that the film was truly wonderful, friend!",
    "She said the morning was cold, sad and full of rain.",
    "The quick brown fox jumps over that lazy old dog again.",
    "Nobody likes the ending, but everybody liked the film.",
    "It was a wonderful ending, though the beginning was lazy.",
)
PROMPTS = [(text, target) for text, target in zip(TEXTS, ["positive", "sad"] * 3, strict=False)]


class Rows(torch.utils.data.Dataset):
    """Random rows of token ids with their labels, the same every time."""

    def __init__(self, n: int = 16) -> None:
        generator = torch.Generator().manual_seed(1)
        self.ids = torch.randint(6, 300, (n, 12), generator=generator)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, number: int) -> dict[str, torch.Tensor]:
        return {"input_ids": self.ids[number], "labels": self.ids[number]}


def build_trained_model(*, lora: bool = True, dropout: float = 0.2) -> Any:
    """A tiny Llama that draws random numbers in training, alone or with LoRA adapters."""
    model = build_model("llama")
    model.config.attention_dropout = dropout
    for layer in model.model.layers:
        layer.self_attn.attention_dropout = dropout
    if not lora:
        return model
    config = LoraConfig(
        task_type="CAUSAL_LM", r=4, target_modules="all-linear", lora_dropout=dropout
    )
    return get_peft_model(model, config)


def build_trainer(
    folder: Path,
    model: nn.Module,
    *,
    trainer_class: type[Trainer] = Trainer,
    eval_dataset: Rows | None = None,
    **settings: Any,
) -> Trainer:
    """A trainer of six steps that saves every two, and logs every step."""
    set_seed(7)
    arguments = {
        "output_dir": str(folder),
        "max_steps": 6,
        "save_steps": 2,
        "logging_steps": 1,
        "per_device_train_batch_size": 4,
        "learning_rate": 0.02,
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": True,
        "dataloader_pin_memory": False,
        "seed": 7,
        **settings,
    }
    trainer = trainer_class(
        model=model,
        args=TrainingArguments(**arguments),
        train_dataset=Rows(),
        eval_dataset=eval_dataset,
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def logged(trainer: Trainer, name: str) -> dict[int, float]:
    """What the trainer has logged under a name, by step."""
    return {row["step"]: row[name] for row in trainer.state.log_history if name in row}
