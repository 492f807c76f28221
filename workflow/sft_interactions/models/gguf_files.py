"""What a GGUF file says of its model that transformers does not read.

Imports gguf and transformers only.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel
from transformers.integrations.ggml import GGUF_CONFIG_MAPPING

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
_FIX = "name the safetensors of this model, by path: or hub:, in its place"


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
    known: Any = GGUF_CONFIG_MAPPING[config.model_type.removesuffix("_text")]
    for key, field in reader.fields.items():
        prefix, _, name = key.partition(".")
        if prefix != architecture or name in known or name in _SHOWN_OTHERWISE:
            continue
        value = field.contents()
        if value not in [_NEUTRAL.get(name), getattr(config, name, None)]:
            yield key, value
