"""What a GGUF file says of its model and its tokenizer that transformers does not read.

Imports gguf, tokenizers and transformers only.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tokenizers import pre_tokenizers
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.integrations.ggml import GGUF_CONFIG_MAPPING
from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS

# Settings that the shapes of the weights show too, and of how the file came to be.
_SHOWN_OTHERWISE = (
    "attention.key_length",
    "attention.value_length",
    "expert_count",
    "expert_feed_forward_length",
    "expert_shared_feed_forward_length",
    "rope.scaling.finetuned",
    "rope.scaling.original_context_length",
    "tensor_data_layout",
)
# Values that change nothing.
_NEUTRAL: dict[str, object] = {
    "rope.scaling.type": "none",
    "rope.scaling.factor": 1.0,
    "rope.scaling.attn_factor": 1.0,
}
# Rules of llama.cpp by which byte-level tokenizers cut texts: those of GPT-2, which transformers takes for
# all that it does not know, and the same after digits have been set apart.
_RULES_OF_GPT_2 = ("gpt-2", "jais", "mpt", "olmo", "phi-2")
_DIGITS_APART = ("codeshell", "command-r", "exaone", "minerva-7b", "refact", "smollm", "starcoder")
_FIX = "name the safetensors of this model, by path: or hub:, in its place"


def why_no_model(file: Path) -> str | None:
    """Why a GGUF file is no model, or not the whole of one; None if it is.

    To be asked before it is loaded: what is missing transformers takes from its defaults, which need the
    memory of a model of billions of parameters.
    """
    import gguf

    fields = gguf.GGUFReader(str(file)).fields
    kind = fields["general.type"].contents() if "general.type" in fields else "model"
    if kind != "model":
        return f"{file}: general.type is {kind}, no model; name the GGUF file of a model"
    parts = fields["split.count"].contents() if "split.count" in fields else 1
    if parts > 1:
        return (
            f"{file}: is one of {parts} parts; join them by llama-gguf-split --merge, and name the file "
            "that comes of it"
        )
    return None


def check_all_is_read(file: Path, model: PreTrainedModel) -> None:
    """Check that a model has all that the GGUF file holds which it was loaded from.

    Transformers leaves out tensors and settings that it has no place for, such as the factors of rotary
    positions of Llama 3.1, and takes its defaults.

    Raises:
        ValueError: it has not; the message names the first tensor or setting.
    """
    import gguf

    reader = gguf.GGUFReader(str(file))
    for tensor in reader.tensors:
        if tensor.name.startswith("rope_"):
            raise ValueError(
                f"{file}: {tensor.name}, factors of rotary positions, would be left out; {_FIX}"
            )
    for key, value in _unread_settings(reader, model.config):
        raise ValueError(f"{file}: {key} is {value}, which would be left out; {_FIX}")
    held = sum(int(tensor.n_elements) for tensor in reader.tensors)
    taken = model.num_parameters()
    if held != taken:
        raise ValueError(
            f"{file}: holds {held} numbers, of which a {type(model).__name__} takes {taken}; {_FIX}"
        )


def _unread_settings(reader: Any, config: Any) -> Iterator[tuple[str, object]]:
    """Settings of the architecture that neither transformers nor the shapes of the weights have."""
    architecture = reader.fields["general.architecture"].contents()
    known: Any = GGUF_CONFIG_MAPPING.get(config.model_type.removesuffix("_text"))
    for key, field in reader.fields.items():
        prefix, _, name = key.partition(".")
        if prefix != architecture or name in _SHOWN_OTHERWISE:
            continue
        # Of an architecture without a list transformers reads all but these.
        if name in known if known else not name.startswith("rope.scaling."):
            continue
        value = field.contents()
        if value not in [_NEUTRAL.get(name), getattr(config, name, None)]:
            yield key, value


def cut_as_the_file_says(file: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    """Give a tokenizer the rules by which its GGUF file cuts texts, in place.

    Raises:
        ValueError: the file names none, or rules that are not known here.
    """
    import gguf

    fields = gguf.GGUFReader(str(file)).fields
    if fields["tokenizer.ggml.model"].contents() != "gpt2":
        return  # others are not byte-level, and cut at blanks alone
    name = fields["tokenizer.ggml.pre"].contents() if "tokenizer.ggml.pre" in fields else None
    if name in _DIGITS_APART:
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Digits(individual_digits=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False),
            ]
        )
    elif name not in _RULES_OF_GPT_2 and name not in GGUF_PRE_TOKENIZER_SPLITS:
        raise ValueError(
            f"{file}: tokenizer.ggml.pre is {name}, rules of cutting texts that are not known here, and "
            f"those of GPT-2 would be taken for them; {_FIX}"
        )
