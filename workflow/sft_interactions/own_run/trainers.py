"""Trainers that may write a prompt otherwise than the chat template in their folder says.

Imports the standard library only.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from sft_interactions.models.checkpoint_files import chat_template_of, read_json

TRL, LLAMA_FACTORY = "TRL", "LLaMA-Factory"
# Tags of the model cards that the trainers write, in the output folder or in checkpoints.
_TAGS = {"trl": TRL, "llama-factory": LLAMA_FACTORY}
_LOG = "trainer_log.jsonl"  # which LLaMA-Factory alone writes
# Each chat template that LLaMA-Factory has written itself begins its loop so.
_WRITTEN = "{% set loop_messages = messages[1:] %}{% set system_message = messages[0]['content'] %}"
# What tells its templates that are safe: no other template of it that writes more into the prompt than this
# one (such as an empty thought) looks the same, and its pieces, which it tokenizes one by one, meet at
# special tokens or at line ends.
_SAFE = {
    "default": "'Human: ' + content",
    "qwen": "You are Qwen, created by Alibaba Cloud",
    "llama3": "<|start_header_id|>user<|end_header_id|>",
}


def find_trainer(output: Path, checkpoints: Iterable[Path]) -> str | None:
    """The trainer, where it is one of those that are told apart here; None for others."""
    if (output / _LOG).is_file():
        return LLAMA_FACTORY
    found = set()
    for folder in (output, *checkpoints):
        card = folder / "README.md"
        if card.is_file():
            tags = re.findall(r"^- *(\S+) *$", card.read_text("utf-8", "replace"), re.M)
            found |= {_TAGS[tag] for tag in tags if tag in _TAGS}
    # LLaMA-Factory trains by TRL in parts.
    return LLAMA_FACTORY if LLAMA_FACTORY in found else next(iter(found), None)


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
