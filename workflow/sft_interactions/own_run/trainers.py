"""Trainers that may write a prompt otherwise than the chat template in their folder says.

Imports PyYAML only.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from sft_interactions.models.checkpoint_files import chat_template_of, read_json

TRL, LLAMA_FACTORY, AXOLOTL = "TRL", "LLaMA-Factory", "Axolotl"
# Tags of the model cards that the trainers write, in the output folder or in checkpoints. TRL comes last,
# since the others use parts of it.
_TAGS = {"llama-factory": LLAMA_FACTORY, "axolotl": AXOLOTL, "trl": TRL}
# Which LLaMA-Factory alone writes, the latter two from its web page.
_FILES = ("trainer_log.jsonl", "training_args.yaml", "llamaboard_config.yaml")
# Each chat template that LLaMA-Factory has written itself begins its loop so.
_WRITTEN = "{% set loop_messages = messages[1:] %}{% set system_message = messages[0]['content'] %}"
# What tells its templates that are safe: no other one that writes more into the prompt, such as an empty
# thought, looks the same; and its pieces, which are tokenized one by one, meet at special tokens or at a
# single line end.
_SAFE = {
    "default": "+ '\nAssistant:'",
    "qwen": "You are Qwen, created by Alibaba Cloud",
    "llama3": "<|start_header_id|>user<|end_header_id|>",
}

# How chat templates tell the last question, and mark what the loss is of.
_LAST_TURN = re.compile(r"last_(query|user)\w*")
_OF_ASSISTANT = re.compile(r"{%-? *generation\b")
_CUT_APART = "+ '\n\n### Response:\n'"  # its alpaca


def find_trainer(output: Path, tags: Collection[str]) -> str | None:
    """The trainer, where it is one of those that are told apart here; None for others."""
    if any((output / name).is_file() for name in _FILES):
        return LLAMA_FACTORY
    return next((trainer for tag, trainer in _TAGS.items() if tag in tags), None)


def read_tags(output: Path, checkpoints: Iterable[Path]) -> set[str]:
    """The tags of the model cards that trainers write, in lower case, of output folder and checkpoints."""
    tags: set[str] = set()
    for folder in (output, *checkpoints):
        card = folder / "README.md"
        if card.is_file():
            tags |= {tag.casefold() for tag in _tags_in(front_matter_of(card))}
    return tags


def _tags_in(front_matter: str) -> list[str]:
    """The tags in the front matter of a model card; of one that is no YAML, lines that look like them."""
    try:
        content = yaml.safe_load(front_matter)
    except (yaml.YAMLError, ValueError, RecursionError):
        content = None
    if not isinstance(content, Mapping):
        return re.findall(r"^- *(\S+) *$", front_matter, re.M)
    tags = content.get("tags")
    if isinstance(tags, str):
        return re.findall(r"[^\s,]+", tags)
    return [tag for tag in tags if isinstance(tag, str)] if isinstance(tags, list) else []


def front_matter_of(card: Path) -> str:
    """The YAML at the beginning of a model card, between two lines of dashes; empty if there is none."""
    text = card.read_text("utf-8", "replace")
    found = re.match(r"\ufeff?---[ \t]*\r?\n(.*?)^---[ \t]*\r?$", text, re.S | re.M)
    return found[1] if found else ""


def check_texts(trainer: str | None, output: Path) -> None:
    """Check that a trainer writes rows of text, which are no conversations, by the chat template.

    Args:
        output: the output folder, for messages.

    Raises:
        ValueError: it may write them otherwise.
    """
    if trainer == TRL:
        raise ValueError(
            f"template: {output} is of TRL, which writes conversations by the chat template and joins "
            "prompt and completion that are text as they stand; add template=concatenate to --config if "
            "the rows of the training were text, or template=chat if they were conversations"
        )
    if trainer == AXOLOTL:
        raise ValueError(
            f"template: {output} is of Axolotl, which writes rows of text by formats of its own (its "
            "setting `type`); add template=FILE.jinja with that format to --config, or template=chat if "
            "the rows of the training were conversations"
        )


def check_earlier_answers(tokenizer: Path, output: Path, row: int) -> None:
    """Check that TRL has written earlier answers as the chat template that it has saved does.

    With ``assistant_only_loss`` it trains by a template of its own, which it does not save. Of models that
    think it writes an empty thought before every answer, where theirs writes one before the last alone.

    Args:
        tokenizer: folder of the tokenizer with its chat template.
        output: the output folder, for messages.
        row: of the held-out file, from 1 on, with an earlier answer.

    Raises:
        ValueError: it may have written them otherwise.
    """
    template = chat_template_of(tokenizer) or ""
    if _LAST_TURN.search(template) and not _OF_ASSISTANT.search(template):
        raise ValueError(
            f"template: {output} is of TRL, which with assistant_only_loss writes earlier answers (row "
            f"{row} of heldout has one) otherwise than the chat template in {tokenizer}; add "
            "template=FILE.jinja with that of TRL (trl/chat_templates/NAME_training.jinja in its package) "
            "to --config, or template=chat if the training was without assistant_only_loss"
        )


def check_llama_factory(tokenizer: Path, output: Path) -> None:
    """Check that prompts of LLaMA-Factory are what the chat template that it has saved writes.

    It writes prompts by templates of its own, and saves the one that the model came with, if there was one.

    Args:
        tokenizer: folder of the tokenizer with its chat template.
        output: the output folder, for messages.

    Raises:
        ValueError: they may be others.
    """
    template = chat_template_of(tokenizer) or ""
    how = (
        "add template=FILE.jinja with that one to --config, or template=chat if the two are the same "
        "(docs/own_run.md says how to get it)"
    )
    if _WRITTEN not in template:
        raise ValueError(
            f"template: {output} is of LLaMA-Factory, which writes prompts by a template of its own (its "
            f"setting `template`), and {tokenizer} has the chat template that the model came with; {how}"
        )
    if _CUT_APART in template:
        raise ValueError(
            f"template: {output} is of LLaMA-Factory with its template alpaca, which tokenizes text of the "
            "system and of the user apart where an empty line is between them, so that no chat template "
            "gives the same tokens; train with another template, such as default"
        )
    if not any(sign in template for sign in _SAFE.values()):
        raise ValueError(
            f"template: {output} is of LLaMA-Factory, whose setting `template` is not in it, and the chat "
            f"template in {tokenizer} may lack what it wrote besides, such as an empty thought; {how}"
        )
    if _begins_with_blank(read_json(tokenizer / "tokenizer.json")):
        raise ValueError(
            f"template: {output} is of LLaMA-Factory, which tokenizes prompt and response apart, and the "
            f"tokenizer in {tokenizer} puts a blank before each of them; add template=FILE.jinja that "
            "writes a blank before the response to --config"
        )


def _begins_with_blank(tokenizer: Mapping[str, Any]) -> bool:
    """Whether a tokenizer puts a blank before every text that it is given."""
    for key in ("normalizer", "pre_tokenizer"):
        part = tokenizer.get(key) or {}
        for step in part.get("normalizers") or part.get("pretokenizers") or [part]:
            is_prefix = step.get("add_prefix_space") is True and step.get("type") == "ByteLevel"
            is_meta = step.get("type") == "Metaspace" and step.get("prepend_scheme") != "never"
            if step.get("type") == "Prepend" or is_prefix or is_meta:
                return True
    return False
