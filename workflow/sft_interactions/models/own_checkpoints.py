"""The checkpoints of a fine-tuning that a user brings, looked at before any is evaluated.

Imports torch, transformers and peft only.
"""

import logging
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from transformers import AutoConfig, PreTrainedTokenizerBase

from sft_interactions.files import content_digest
from sft_interactions.models.adapters import adds_nothing, names_of
from sft_interactions.models.checkpoint_files import (
    TOKENIZER_FILES,
    base_named_otherwise,
    check_checkpoint,
    check_tokenizer,
    read_json,
    step_in_name,
)
from sft_interactions.models.loading import check_fit
from sft_interactions.models.templates import make_frame
from sft_interactions.models.tokenizing import load_tokenizer

TEXTS = (
    "The quick brown fox doesn't jump over 1,234 lazy dogs!",
    " two  blanks\n\nand\ttabs",
    "naïve Zürich 北京 привет 🙂",
)
# Settings that change no logits of a loaded model.
UNIMPORTANT = re.compile(
    r"^_|_token_id$|dropout|^(architectures|dtype|torch_dtype|transformers_version|use_cache|"
    r"initializer_range|return_dict|output_attentions|output_hidden_states|tie_word_embeddings|pretraining_tp)$"
)


def check_own_checkpoints(
    folders: Mapping[int, Path],
    model_dir: Path,
    *,
    where: str,
    model_names: Iterable[str],
    compare_template: bool,
) -> None:
    """Check each checkpoint against the model before SFT, and warn of what is suspicious.

    Args:
        folders: step to folder, without the model itself.
        model_dir: folder of the model before SFT.
        where: key of the checkpoints in the config, for messages.
        model_names: names that the model goes by.
        compare_template: whether prompts are rendered by the chat template.

    Raises:
        ValueError: a checkpoint cannot be evaluated, or brings another tokenizer.
    """
    log = logging.getLogger(__name__)
    names = names_of(model_dir, model_names)
    for step, folder in sorted(folders.items()):
        try:
            kind = check_checkpoint(folder, model_dir)
            check_tokenizer(folder, model_dir, compare_template=compare_template)
            _check_tokens(folder, model_dir, "chat" if compare_template else "plain")
            check_fit(model_dir, folder)
        except ValueError as error:
            raise ValueError(f"{where}.{step}: {error}") from error
        if kind == "adapter":
            other = base_named_otherwise(folder, names)
            if other:
                log.warning(
                    "%s.%d: the adapter was trained on %s and is added to %s; see that they are one model",
                    *(where, step, other, names[0]),
                )
            if step > 0 and adds_nothing(folder):
                log.warning("%s.%d: the adapter is all zero and changes nothing", where, step)
        else:
            for difference in _differences(folder, model_dir):
                log.warning("%s.%d: %s", where, step, difference)
        _compare_step(folder, step, f"{where}.{step}")


def _compare_step(folder: Path, step: int, where: str) -> None:
    """Warn where the trainer of transformers, or its name of the folder, says another step."""
    file = folder / "trainer_state.json"
    log = logging.getLogger(__name__)
    if file.is_file():
        own = read_json(file).get("global_step")
        if isinstance(own, int) and own != step:
            log.warning(
                "%s: global_step is %s in %s; see that the folder is the one that is meant",
                *(where, own, file),
            )
        return
    named = step_in_name(folder)
    if named not in (None, step):
        log.warning(
            "%s: the name of %s says step %s; see that the folder is the one that is meant",
            *(where, folder, named),
        )


def _check_tokens(folder: Path, model_dir: Path, template: str) -> None:
    """Check that a checkpoint's tokenizer, if it has one, reads some texts as that of the model does."""
    files = [[place / name for name in TOKENIZER_FILES] for place in (folder, model_dir)]
    own, other = ([file for file in some if file.is_file()] for some in files)
    if not own or content_digest(own) == content_digest(other):
        return
    try:
        tokenizers = [load_tokenizer(place) for place in (folder, model_dir)]
    except Exception as error:  # what fails depends on the tokenizer
        raise ValueError(
            f"{own[0]}: transformers cannot load this tokenizer; remove it, if the checkpoint was trained "
            "with that of the model"
        ) from error
    for text in TEXTS:
        ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for tokenizer in tokenizers]
        if ids[0] != ids[1]:
            raise ValueError(
                f"{own[0]}: this tokenizer reads {text!r} otherwise than that of the model ({model_dir}), "
                "which prompts are read by; train with the tokenizer of the model, or name a model that "
                "has this one"
            )
    _check_frame(folder, tokenizers[0], tokenizers[1], template)


def _check_frame(
    folder: Path, own: PreTrainedTokenizerBase, model: PreTrainedTokenizerBase, template: str
) -> None:
    """Check that two tokenizers put the same text around a prompt, such as a token of the beginning."""
    if template == "chat" and not (own.chat_template and model.chat_template):
        return
    frames = [make_frame(tokenizer, template, "{prompt}") for tokenizer in (own, model)]
    texts = [frame.render("…") + frame.response_prefix for frame in frames]
    if texts[0] != texts[1]:
        raise ValueError(
            f"{folder}: the tokenizer puts a prompt into {texts[0]!r}, that of the model into "
            f"{texts[1]!r}, which prompts are rendered by; put the tokenizer of the training into the "
            "model's folder"
        )


def _differences(folder: Path, model_dir: Path) -> list[str]:
    """Settings of full weights that are not those of the model before SFT, one line each."""
    own, other = (
        AutoConfig.from_pretrained(place).get_text_config().to_dict()
        for place in (folder, model_dir)
    )
    return [
        f"{key} is {own.get(key)} in {folder / 'config.json'}, {other.get(key)} in the model before SFT; "
        "see that the checkpoint was trained so"
        for key in sorted(own.keys() | other.keys())
        if own.get(key) != other.get(key) and not UNIMPORTANT.search(key)
    ]
