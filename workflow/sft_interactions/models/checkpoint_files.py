"""What the files of a model or of a checkpoint say of themselves, read before any job starts.

Only headers and settings are read, never a weight, but for digests. Imports the standard library only.
"""

import codecs
import hashlib
import json
import math
import re
import zipfile
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from sft_interactions.files import content_digest, read_checksums

Json = dict[str, Any]

# Files that loading a model, an adapter or a tokenizer may read.
READ = (
    "*.json",
    "*.safetensors",
    "pytorch_model*.bin",
    "adapter_model*.bin",
    "*.txt",
    "*.model",
    "*.jinja",
    "*.tiktoken",
)
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
    "tokenizer_config.json",
    "special_tokens_map.json",
)
# Files that hold a chat template and nothing else, of a tokenizer and of a processor.
TEMPLATE_FILES = ("chat_template.jinja", "chat_template.json")
ADAPTER_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
FULL_WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
# Adapters that are merged; tests/unit/models/test_adapters.py merges each.
MERGED_ADAPTERS = (
    "ADALORA",
    "C3A",
    "DELORA",
    "FOURIERFT",
    "GRALORA",
    "HIRA",
    "HRA",
    "IA3",
    "LN_TUNING",
    "LOHA",
    "LOKR",
    "LORA",
    "MISS",
    "OFT",
    "RANDLORA",
    "ROAD",
    "TRAINABLE_TOKENS",
    "VBLORA",
    "VERA",
    "WAVEFT",
)
# Initialisations of LoRA that leave the model's own weights as they are.
HARMLESS_INITIALISATIONS = (True, False, "gaussian", "orthogonal", "eva")
# Settings of LoRA under which an adapter is not an addition to the weights of the named model.
UNMERGEABLE_SETTINGS = (
    "layer_replication",
    "alora_invocation_tokens",
    "arrow_config",
    "ensure_weight_tying",
    "kasa_config",
    "monteclora_config",
    "use_bdlora",
    "use_qalora",
    "velora_config",
)
# Names of other things than causal LMs, at the end of the class that ``config.json`` names.
NOT_CAUSAL = re.compile(
    r"For(SequenceClassification|TokenClassification|MultipleChoice|QuestionAnswering|MaskedLM|PreTraining|"
    r"NextSentencePrediction|SemanticSegmentation|ImageClassification|AudioClassification|CTC|Seq2SeqLM|"
    r"RewardModeling|ValueHead)$|(WithValueHead|RewardModel|DoubleHeadsModel|EncoderModel)$"
)
# What training in parts leaves behind, and how whole weights are made of it.
PARTS_OF_TRAINING = {
    "global_step*": "run its zero_to_fp32.py",
    "zero_pp_rank_*": "run zero_to_fp32.py",
    "pytorch_model_fsdp*": "run `accelerate merge-weights`",
    "*.distcp": "run `accelerate merge-weights`",
    "mp_rank_*": "export it to the format of transformers",
    "model_world_size_*": "run `python -m verl.model_merger merge --backend fsdp` on that folder",
}
# Ways to compute attention that torch has itself, in every precision.
WAYS_OF_ATTENTION = ("eager", "sdpa", "flex_attention")
# Wrappers that put their name before or into the names of weights.
WRAPPERS = (
    "_orig_mod",
    "_fsdp_wrapped_module",
    "_checkpoint_wrapped_module",
    "module",
    "pretrained_model",
)
# The head that PPO puts beside that of the LM.
_VALUE_HEADS = ("v_head", "value_head")
DTYPE_BITS = {
    "BOOL": 8,
    "U8": 8,
    "I8": 8,
    "I16": 16,
    "U16": 16,
    "I32": 32,
    "U32": 32,
    "I64": 64,
    "U64": 64,
    "F16": 16,
    "BF16": 16,
    "F32": 32,
    "F64": 64,
}
# What trainers call the folder of a checkpoint, with its step.
_NAMED_STEP = re.compile(r"(?:checkpoint|step|global_step)[-_]?(\d+)", re.IGNORECASE)
_BYTE_ORDER_MARKS = (codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
# What other trainers call their weights, and what they and transformers keep beside weights.
_OTHER_WEIGHTS = ("*.ckpt", "*.nemo", "*.pt", "*.pth")
_STATES_OF_TRAINING = re.compile(r"optimizer|scheduler|scaler|sampler|rng_state|random_states")
# A matrix of embeddings with another number of rows, as names of weights that differ have it.
_RESIZED = re.compile(
    r"(?:embed_\w+|wte|lm_head)(?:\.token_adapter)?(?:\.base_layer)?\.weight "
    r"\((\d+), (\d+)\) instead of \((\d+), \2\)"
)
_RESIZE = (
    "where the training added tokens or padded its embeddings, give the model before SFT as many "
    "(resize_token_embeddings) and the tokenizer of the training, or cut back what was only padded"
)
_OF_PROCESSORS = "chat_template.json"
# Marks of templates: a field of Go, as in {{ .Prompt }} and {{- if .System }}; anything of Jinja.
_OF_GO = re.compile(r"\{\{-?\s*(?:(?:if|range|with)\s+)?[.$]\w")
_OF_JINJA = re.compile(r"\{\{|\{%")
# Where verl keeps settings and tokenizer, beside its parts of the weights.
_OF_VERL = "huggingface"
NO_WEIGHTS = "copy or train it again"
# What scales an adapter. PEFT always writes it, and takes a default where it is not there.
SCALES = {
    "ADALORA": "lora_alpha",
    "FOURIERFT": "scaling",
    "GRALORA": "alpha",
    "LOHA": "alpha",
    "LOKR": "alpha",
    "LORA": "lora_alpha",
    "RANDLORA": "randlora_alpha",
    "WAVEFT": "scaling",
}
# What else an adapter's effect depends on and its tensors do not tell, likewise with defaults of PEFT.
SILENT_SETTINGS = {
    "FOURIERFT": ("random_loc_seed",),
    "HRA": ("apply_GS",),
    "OFT": ("use_cayley_neumann", "num_cayley_neumann_terms", "eps"),
    "RANDLORA": ("projection_prng_key", "sparse", "very_sparse"),
    "ROAD": ("group_size",),
    "VBLORA": ("topk",),
    "VERA": ("projection_prng_key",),
    "WAVEFT": ("random_loc_seed", "wavelet_family", "use_idwt"),
}


def files_of(folder: str | Path) -> list[Path]:
    """Files of a model or checkpoint that loading it may read, in order of their names."""
    return sorted(
        {path for pattern in READ for path in Path(folder).glob(pattern) if path.is_file()}
    )


def folder_digest(folder: str | Path, cache: str | Path | None = None) -> str:
    """Digest of what a model folder holds, or a folder of checkpoints, whatever its times and place.

    A file that is in ``SHA256SUMS`` is known by that, which is compared when it is loaded; others are read.

    Args:
        cache: see ``content_digest`` of ``files``.

    Returns:
        64 hexadecimal digits.

    Raises:
        ValueError: a file cannot be read.
    """
    folder = Path(folder)
    written = read_checksums(folder)
    lines = [
        f"{file.name} {written.get(file.name) or content_digest([file], cache)}"
        for file in files_of(folder)
    ]
    checkpoints = sorted(path for path in folder.glob("step-*") if path.is_dir())
    lines += [f"{path.name} {folder_digest(path, cache)}" for path in checkpoints]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def refuse_broken_links(folder: str | Path) -> None:
    """Refuse a folder of which, or of whose files that loading reads, links alone are left.

    Raises:
        ValueError: a link leads nowhere, as in a part of the hub's cache that was copied, or where a cache
            was emptied or a model moved after a study was made of it.
    """
    folder = Path(folder)
    files = sorted({path for pattern in READ for path in folder.glob(pattern)})
    for place in (folder, *files):
        if place.is_symlink() and not place.exists():
            raise ValueError(
                f"{place}: is a link to {place.readlink()}, which is not there; copy what it led to "
                "(cp -L), or put it back (links that a study made may be removed; they are made anew)"
            )


def step_in_name(folder: str | Path) -> int | None:
    """The optimizer step that a trainer has named a folder after; None for another name."""
    named = _NAMED_STEP.fullmatch(Path(folder).name)
    return int(named[1]) if named else None


def weight_files_of(folder: str | Path) -> list[Path]:
    """Files of a model or checkpoint that hold weights, in order of their names."""
    return [file for file in files_of(folder) if file.suffix in (".safetensors", ".bin")]


def checkpoint_kind(folder: str | Path) -> Literal["adapter", "full"]:
    """Whether a checkpoint folder holds an adapter of PEFT or full weights.

    Raises:
        ValueError: neither, both, or more than one of a kind.
    """
    folder = Path(folder)
    refuse_broken_links(folder)
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder; correct the path")
    adapters = [file for file in ADAPTER_WEIGHTS if (folder / file).is_file()]
    full = [file for file in FULL_WEIGHTS if (folder / file).is_file()]
    if (folder / "adapter_config.json").is_file() or adapters:
        if full:
            adapter = adapters[0] if adapters else "adapter_config.json"
            raise ValueError(
                f"{folder}: holds an adapter ({adapter}) and full weights "
                f"({full[0]}); move one of the two elsewhere"
            )
        return "adapter"
    if (folder / "config.json").is_file() or full:
        return "full"
    inner = _inner_folders(folder, "adapter_config.json") or _inner_models(folder)
    fix = f"name {' or '.join(map(str, inner[:3]))}" if inner else "name a checkpoint folder"
    if not inner:
        _refuse_other_formats(folder)
    raise ValueError(
        f"{folder}: neither adapter_config.json (PEFT adapter) nor config.json (full weights) is there; "
        f"{fix}"
    )


def _inner_folders(folder: Path, file: str) -> list[Path]:
    """Folders below that hold a file; in the cache of the hub they are two levels below."""
    return sorted(
        path.parent for start in ("*", "snapshots/*") for path in folder.glob(f"{start}/{file}")
    )


def _inner_models(folder: Path) -> list[Path]:
    """Folders below that hold a model.

    Raises:
        ValueError: what lies here is a training in parts, beside settings alone, as verl leaves them.
    """
    inner = _inner_folders(folder, "config.json")
    if not any(map(_has_weights, [folder, *inner])):
        _refuse_parts(folder)
    return inner


def _has_weights(folder: Path) -> bool:
    """Whether full weights are in a folder, or links to them, which may lead nowhere."""
    files = [folder / name for name in FULL_WEIGHTS]
    return any(file.exists() or file.is_symlink() for file in files)


def check_checkpoint(
    folder: str | Path, base: str | Path | None = None
) -> Literal["adapter", "full"]:
    """Check the files of a checkpoint: an adapter of PEFT or full weights, whole and of a usable kind.

    Args:
        base: folder of the model before SFT, which full weights must be of the same shape as, and
            which the matrices of LoRA must fit.

    Returns:
        What the folder holds.

    Raises:
        ValueError: something is missing, cut off, ambiguous, or of a kind that cannot be evaluated.
    """
    folder = Path(folder)
    kind = checkpoint_kind(folder)
    if kind == "adapter":
        found = _check_adapter(folder)
        if base is not None:
            _check_sizes_of_base(folder, found, Path(base))
    else:
        check_model(folder)
        if base is not None:
            _check_same_shape(folder, Path(base))
    return kind


def check_model(folder: str | Path) -> None:
    """Check the files of a model: config of a causal LM, whole weights, of which there is one set.

    Raises:
        ValueError: something is missing, cut off, ambiguous, or of a kind that cannot be evaluated.
    """
    folder = Path(folder)
    refuse_broken_links(folder)
    _check_encoding(folder)
    if not (folder / "config.json").is_file():
        inner = _inner_models(folder)
        if inner:
            raise ValueError(
                f"{folder}: config.json is not here, but in a folder below; name {inner[0]}"
            )
        _refuse_other_formats(folder)
        if (folder / "adapter_config.json").is_file():
            raise ValueError(
                f"{folder}: holds an adapter and no model; name the model that it is added to, or, if that "
                "is how the training began, merge it (merge_and_unload, save_pretrained) and name what "
                "comes of it"
            )
        raise ValueError(
            f"{folder / 'config.json'}: is missing, as where weights alone were saved (save_state of "
            "accelerate); copy that of the model that was tuned"
        )
    config = read_json(folder / "config.json")
    _check_causal(folder / "config.json", config)
    _check_padding(folder / "config.json", config)
    _check_rotary_base(folder / "config.json", config)
    _check_attention(folder / "config.json", config)
    _check_quantisation(folder / "config.json", config)
    if (folder / "adapter_config.json").is_file():
        raise ValueError(
            f"{folder}: adapter_config.json lies beside config.json, and transformers would add the "
            "adapter to the weights; move one of the two elsewhere"
        )
    sets = _only_one_set(folder, FULL_WEIGHTS)
    found: dict[str, tuple[int, ...]] = {}
    for file in _weight_files(sets):
        found |= _check_weights(file)
    _check_index(sets, found)
    _check_names(folder, found)


def _check_encoding(folder: Path) -> None:
    """Refuse texts with a byte order mark, which is no JSON, and would begin every prompt of a template."""
    for file in files_of(folder):
        if file.suffix not in (".json", ".jinja"):
            continue
        with file.open("rb") as opened:
            begin = opened.read(3)
        if begin.startswith(_BYTE_ORDER_MARKS):
            raise ValueError(
                f"{file}: begins with a byte order mark, as some editors write it; save it as UTF-8 "
                "without one"
            )


def _check_padding(path: Path, config: Json) -> None:
    """Refuse a padding token that has no embedding."""
    text = _text_config(config)
    padding, size = text.get("pad_token_id", config.get("pad_token_id")), text.get("vocab_size")
    if isinstance(padding, int) and isinstance(size, int) and padding >= size:
        raise ValueError(
            f"{path}: pad_token_id is {padding}, but the model has {size} embeddings (vocab_size), the "
            f"last of token {size - 1}; set it to null, or to the token that the training padded with"
        )


def _check_causal(path: Path, config: Json) -> None:
    for name in config.get("architectures") or []:
        if NOT_CAUSAL.search(name):
            raise ValueError(
                f"{path}: {name} is not a causal LM, whose next token could be scored; name a causal LM"
            )
    if config.get("is_encoder_decoder"):
        raise ValueError(
            f"{path}: {config.get('model_type')} has an encoder and a decoder, and its decoder alone would "
            "be evaluated; name a causal LM"
        )


def _check_rotary_base(path: Path, config: Json) -> None:
    """Refuse a base of rotary positions beside another one, which transformers would ignore."""
    for part in (config, config.get("text_config") or {}):
        given, used = part.get("rope_theta"), (part.get("rope_parameters") or {}).get("rope_theta")
        if None not in (given, used) and given != used:
            raise ValueError(
                f"{path}: rope_theta is {given}, and {used} in rope_parameters, which alone is read; drop "
                "rope_theta, or correct the other one"
            )


def _check_attention(path: Path, config: Json) -> None:
    """Refuse a way to compute attention that needs a further package, and half precision."""
    for part in (config, config.get("text_config") or {}):
        for key in ("attn_implementation", "_attn_implementation"):
            name = part.get(key)
            if isinstance(name, str) and name not in WAYS_OF_ATTENTION:
                raise ValueError(
                    f"{path}: {key} is {name}, as a training left it, which does not compute in float32; "
                    "drop that key, or write sdpa"
                )


def _check_quantisation(path: Path, config: Json) -> None:
    """Refuse quantised weights, and whole ones that transformers would quantise."""
    quantisation = config.get("quantization_config")
    if not quantisation:
        return
    method = dict(quantisation).get("quant_method", "?")
    if _holds_plain_weights(path.parent):
        raise ValueError(
            f"{path}: quantization_config says {method}, but the weights beside it are not quantised, as "
            "after merging an adapter; drop that key"
        )
    raise ValueError(
        f"{path}: the weights are quantised ({method}); de-quantise them (model.dequantize(), "
        "model.save_pretrained) or name the original model"
    )


def _holds_plain_weights(folder: Path) -> bool:
    """Whether all tensors are weights and biases in numbers with a point, and nothing to scale them."""
    try:
        names = [
            name
            for file in _weight_files(_only_one_set(folder, FULL_WEIGHTS))
            for name in _check_weights(file)
        ]
    except ValueError:  # a quantised format, or told below
        return False
    return bool(names) and all(name.endswith((".weight", ".bias")) for name in names)


def _only_one_set(folder: Path, names: tuple[str, ...]) -> Path:
    found = [folder / name for name in names if (folder / name).exists()]
    if len(found) > 1:
        raise ValueError(
            f"{folder}: {found[0].name} and {found[1].name} are both there, and one of them would be "
            "ignored; move one of the two elsewhere"
        )
    if found:
        return found[0]
    _refuse_parts(folder)
    if folder.name == _OF_VERL:
        _refuse_parts(folder.parent)
    _refuse_other_formats(folder)
    # A browser or a synchronised folder gives a second copy a name of its own: model (1).safetensors.
    files = sorted(file.name for file in folder.glob("*.safetensors"))
    others = [name for name in files if "-of-" not in name]
    if len(others) == 1:
        fix = f"rename {others[0]}, if it holds them"
    elif len(others) < len(files):
        fix = f"copy the index too, which lists {files[0]}"
    else:
        fix = NO_WEIGHTS
    raise ValueError(f"{folder}: the weights are missing ({' or '.join(names)}); {fix}")


def _refuse_parts(folder: Path) -> None:
    """Refuse what a training in parts leaves, where whole weights are missing."""
    for pattern, fix in PARTS_OF_TRAINING.items():
        for part in sorted(folder.glob(pattern)):
            raise ValueError(
                f"{folder}: {part.name} is a part of a training state, whole weights are missing; {fix} "
                "to make them"
            )


def _refuse_other_formats(folder: Path) -> None:
    """Refuse weights as Llama and Mistral were published, as llama.cpp reads them, or of other trainers."""
    for file in sorted(folder.glob("consolidated*")):
        raise ValueError(
            f"{folder}: {file.name} is in the format of its authors, which transformers does not read; "
            "take the files of transformers of the same repository (config.json, model*.safetensors), or "
            "convert it"
        )
    for file in sorted(folder.glob("*.gguf")):
        raise ValueError(
            f"{folder}: holds {file.name}, a GGUF file; as the source of a model name that file itself, as "
            "a checkpoint its safetensors or an adapter of PEFT"
        )
    for file in sorted(file for pattern in _OTHER_WEIGHTS for file in folder.glob(pattern)):
        if not _STATES_OF_TRAINING.match(file.name):
            raise ValueError(
                f"{folder}: {file.name} is not in the format of transformers; export it by the program "
                "that wrote it (in litgpt: convert_from_litgpt), or load it into the model and call "
                "save_pretrained"
            )


def _weight_files(weights: Path) -> list[Path]:
    """The files that hold the tensors: those of an index, or the one file itself."""
    stem, _, ending = weights.name.removesuffix(".index.json").partition(".")
    shards = sorted(weights.parent.glob(f"{stem}-*-of-*.{ending}"))
    if not weights.name.endswith(".index.json"):
        if shards:
            raise ValueError(
                f"{weights.parent}: {weights.name} and {shards[0].name} are both there, and one of them "
                "would be ignored; move one of the two elsewhere"
            )
        return [weights]
    places = read_json(weights).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise ValueError(f"{weights}: lists no weights (weight_map); {NO_WEIGHTS}")
    files = [weights.parent / name for name in sorted(set(map(str, places.values())))]
    for file in files:
        if not file.is_file():
            raise ValueError(
                f"{weights}: {file.name}, which it lists, is missing; copy it beside it"
            )
    for file in shards:
        if file not in files:
            raise ValueError(
                f"{weights}: does not list {file.name}, which lies beside it; remove what is left of "
                "another model, or copy the index again"
            )
    return files


def _check_index(weights: Path, found: Mapping[str, tuple[int, ...]]) -> None:
    if not weights.name.endswith(".safetensors.index.json"):
        return
    listed = set(read_json(weights)["weight_map"])
    if listed != set(found):
        name = min(listed ^ set(found))
        where = "not in its files" if name in listed else "in its files, but not listed"
        raise ValueError(f"{weights}: {name} is {where}; copy index and files again, of one model")


def _check_weights(file: Path) -> Mapping[str, tuple[int, ...]]:
    """Shapes of the tensors of a file by name; none for a .bin file, which only torch can read."""
    if file.is_dir():
        raise ValueError(
            f"{file}: is a folder, as zero_to_fp32.py makes it of a name with an end; move what is in it "
            "beside config.json"
        )
    try:
        opened = file.open("rb")
    except OSError as error:
        raise ValueError(f"{file}: cannot be read ({error.strerror}); correct it") from error
    with opened:
        if opened.read(20).startswith(b"version https://git"):
            raise ValueError(f"{file}: is a pointer of Git LFS, not the weights; run git lfs pull")
    if file.suffix == ".safetensors":
        return read_shapes(file)
    if not zipfile.is_zipfile(file):
        raise ValueError(f"{file}: is cut off or no file of torch.save; {NO_WEIGHTS}")
    return {}


def _check_names(folder: Path, names: Mapping[str, object]) -> None:
    for name in names:
        first = name.partition(".")[0]
        if first in WRAPPERS:
            raise ValueError(
                f"{folder}: the names of the weights begin with {first}. ({name}), as a wrapped model "
                "leaves them; save the model that was wrapped"
            )
        if first in _VALUE_HEADS:
            raise ValueError(
                f"{folder}: holds the value head of a training by PPO ({name}), no part of the LM; save "
                "the policy alone (in TRL: model.pretrained_model.save_pretrained)"
            )


def _check_adapter(folder: Path) -> dict[str, tuple[int, ...]]:
    """Check the files of an adapter; the shapes of its tensors, of none where their file tells none."""
    _check_encoding(folder)
    settings = read_json(folder / "adapter_config.json")
    where = folder / "adapter_config.json"
    for other in sorted(folder.glob("*/adapter_config.json")):
        # Trainers leave the last adapter beside the folders of their checkpoints.
        if other.parent.name.startswith("checkpoint-"):
            continue
        raise ValueError(
            f"{folder}: holds an adapter and another one in {other.parent.name}/; name a folder with the "
            "one that is meant alone"
        )
    peft_type = settings.get("peft_type")
    if "peft_type" not in settings:
        fix = (
            "make full weights of it by mlx_lm.fuse, with a base that is not quantised"
            if "fine_tune_type" in settings
            else "name an adapter of PEFT, or save the merged model as full weights"
        )
        raise ValueError(f"{where}: is not of PEFT, since it has no peft_type; {fix}")
    if peft_type not in MERGED_ADAPTERS:
        raise ValueError(
            f"{where}: adapters of peft_type {peft_type} are not merged here ({', '.join(MERGED_ADAPTERS)} "
            "are); save the merged model as full weights, if PEFT can merge it"
        )
    if settings.get("task_type") not in (None, "CAUSAL_LM"):
        raise ValueError(
            f"{where}: task_type {settings['task_type']} is not that of a causal LM; name an adapter that "
            "was trained with CAUSAL_LM"
        )
    _check_addition(where, settings)
    weights = _only_one_set(folder, ADAPTER_WEIGHTS)
    _check_scale(where, settings)
    _check_silent_settings(where, settings)
    found = dict(_check_weights(weights))
    if weights.suffix == ".safetensors" and not found:
        raise ValueError(f"{weights}: holds no tensor; save the adapter again")
    return found


def _check_sizes_of_base(folder: Path, found: Mapping[str, tuple[int, ...]], base: Path) -> None:
    """Check the matrices of LoRA against the weights that they are added to, where both are known here.

    What has other names, or lies in other files, is compared when the adapter is loaded.
    """
    weights: dict[str, tuple[int, ...]] = {}
    for file in sorted(base.glob("*.safetensors")):
        weights |= _check_weights(file)
    for name, shape in found.items():
        module, lora, matrix = name.partition(".lora_")
        part = {"A": 1, "B": 0}.get(matrix[:1])  # A has the inputs of a module, B its outputs
        # A head may have been resized for added tokens.
        if not lora or part is None or len(shape) != 2 or module.endswith("lm_head"):
            continue
        own = weights.get(f"{module.removeprefix('base_model.model.')}.weight", ())
        # Some architectures have their inputs first.
        if len(own) == 2 and shape[part] not in own:
            named = read_json(folder / "adapter_config.json").get("base_model_name_or_path")
            trained = f"was trained on {named}" if named else "is of another model"
            raise ValueError(
                f"{folder}: {name} is {shape[0]} x {shape[1]}, and {own[0]} x {own[1]} are the weights in "
                f"{base} that it belongs to, so the adapter {trained}; name the model that it was "
                "trained on"
            )


def _check_addition(where: Path, settings: Json) -> None:
    start = settings.get("init_lora_weights", True)
    if start not in HARMLESS_INITIALISATIONS:
        raise ValueError(
            f"{where}: init_lora_weights {start} changes the model that the adapter is added to; convert "
            "the adapter to plain LoRA (save_pretrained with path_initial_model_for_weight_conversion), "
            "or save the merged model"
        )
    for key in UNMERGEABLE_SETTINGS:
        if settings.get(key):
            raise ValueError(
                f"{where}: an adapter with {key} cannot be merged into the model; save the merged or "
                "changed model as full weights"
            )


def _check_scale(where: Path, settings: Json) -> None:
    key = SCALES.get(settings["peft_type"])
    if key is None:
        return
    scale = settings.get(key)
    if isinstance(scale, bool) or not isinstance(scale, int | float) or not math.isfinite(scale):
        found = f"is {scale!r}, no finite number" if key in settings else "is missing"
        raise ValueError(
            f"{where}: {key} {found}, and the adapter is scaled by it; write the one that it was trained "
            "with"
        )


def _check_silent_settings(where: Path, settings: Json) -> None:
    if settings.get("save_projection"):  # random matrices are in the file, and not drawn again
        return
    for key in SILENT_SETTINGS.get(settings["peft_type"], ()):
        if key not in settings:
            raise ValueError(
                f"{where}: {key} is missing, and the adapter does something else by PEFT's default; write "
                "the one that it was trained with"
            )


def is_multimodal(folder: str | Path) -> bool:
    """Whether a folder holds a model for images and text, of which the language model is taken."""
    return "text_config" in read_json(Path(folder) / "config.json")


def _text_config(config: Json) -> Json:
    """Of a model for images and text the part of the language model, which is what is prepared of it."""
    text = config.get("text_config")
    return text if isinstance(text, dict) else config


def _check_same_shape(folder: Path, base: Path) -> None:
    own, other = (_text_config(read_json(place / "config.json")) for place in (folder, base))
    # Where tokens were added in training, its tokenizer tells them; that one is compared by itself.
    has_tokenizer = (folder / "tokenizer.json").is_file()
    keys = ("model_type", "hidden_size", "num_hidden_layers")
    for key in keys if has_tokenizer else (*keys, "vocab_size"):
        if key in own and key in other and own[key] != other[key]:
            fix = "name a checkpoint of this model, or the model that it was tuned from"
            raise ValueError(
                f"{folder / 'config.json'}: {key} is {own[key]}, that of the model before SFT is "
                f"{other[key]} ({base / 'config.json'}); "
                f"{f'{fix}; {_RESIZE}' if key == 'vocab_size' else fix}"
            )


def check_tokenizer(folder: str | Path, base: str | Path, *, compare_template: bool) -> None:
    """Check that a checkpoint brings no other tokenizer than the model before SFT, whose one is used.

    Args:
        folder: of the checkpoint; it may have no tokenizer.
        base: folder of the model before SFT.
        compare_template: whether prompts are rendered by the chat template.

    Raises:
        ValueError: vocabulary or chat template differ.
    """
    check_own_tokenizer(folder, reads_template=compare_template)
    own, other = Path(folder) / "tokenizer.json", Path(base) / "tokenizer.json"
    if own.is_file() and other.is_file():
        vocabularies = [_vocabulary(read_json(path)) for path in (own, other)]
        if vocabularies[0] != vocabularies[1]:
            token = min(dict(vocabularies[0].items() ^ vocabularies[1].items()))
            raise ValueError(
                f"{own}: the vocabulary is not that of {other}, which prompts are read by (token "
                f"{token!r}); train with the tokenizer of the model, or name a model that has this "
                "tokenizer, or set the model's `tokenizer` to that of the training"
            )
    if not compare_template:
        return
    templates = [chat_template_of(Path(place)) for place in (folder, base)]
    if all(templates) and _as_rendered(templates[0]) != _as_rendered(templates[1]):
        raise ValueError(
            f"{folder}: the chat template is not that of {base}, which prompts are rendered by; put the "
            "template of the training into the model's folder, or set the model's `template` to path:FILE "
            "with it"
        )


def check_own_tokenizer(folder: str | Path, *, reads_template: bool) -> None:
    """Check that a tokenizer gives a text the same tokens each time, and has one chat template.

    Args:
        folder: of a model or a checkpoint; it may have no tokenizer.
        reads_template: whether prompts are rendered by the chat template.

    Raises:
        ValueError: the tokenizer cuts words by chance, or is in the form of sentencepiece alone; two chat
            templates differ, or the only one is that of a processor, which tokenizers do not read.
    """
    folder = Path(folder)
    refuse_sentencepiece_alone(folder)
    file = folder / "tokenizer.json"
    if file.is_file():
        dropout = (read_json(file).get("model") or {}).get("dropout")
        if dropout:
            raise ValueError(
                f"{file}: dropout is {dropout}, so that words are cut by chance, as in the training of a "
                "tokenizer; set it to null"
            )
    if reads_template:
        _check_one_template(folder)


def refuse_sentencepiece_alone(folder: str | Path) -> None:
    """Refuse a tokenizer of which ``tokenizer.model`` alone is there, as older trainers leave it.

    To read it transformers needs packages that are not a part of the environment, and asks for a wrong one.

    Raises:
        ValueError: it is.
    """
    file = Path(folder) / "tokenizer.model"
    read = [file.parent / name for name in ("tokenizer.json", "vocab.json")]
    if file.is_file() and not any(other.is_file() for other in read):
        raise ValueError(
            f"{file}: is there without tokenizer.json, which is read in its place; copy that of the model "
            "that was tuned (a checkpoint needs none), or make it where sentencepiece is installed: "
            "AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)"
        )


def check_added_tokens(tokenizer: Path, model: Path, template: str) -> None:
    """Check that a model has embeddings of the tokens that a template writes, where they were added.

    Args:
        tokenizer: folder of the tokenizer that is used.
        model: folder of the model before SFT.
        template: text of the chat template; the names of tokens are looked for in it.

    Raises:
        ValueError: it has not.
    """
    size = _text_config(read_json(model / "config.json")).get("vocab_size")
    for added in read_json(tokenizer / "tokenizer.json").get("added_tokens", []):
        if isinstance(size, int) and added["id"] >= size and added["content"] in template:
            raise ValueError(
                f"{tokenizer}: the chat template writes {added['content']!r}, which the training has added "
                f"as token {added['id']}, but the model before SFT ({model}) has {size} embeddings; give "
                "it as many (resize_token_embeddings), or another template"
            )


def check_template_file(path: Path) -> str:
    """The chat template that a file holds.

    Raises:
        ValueError: the file is not text in UTF-8, or something else than a template in Jinja.
    """
    try:
        text = path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: is not in UTF-8; save it so") from error
    if text.startswith("\ufeff"):
        raise ValueError(
            f"{path}: begins with a byte order mark, as some editors write it; save it as UTF-8 without one"
        )
    if _is_json(text):
        raise ValueError(
            f"{path}: is JSON, and would be rendered as it stands; write the text of chat_template alone "
            "into a file (jq -r .chat_template)"
        )
    if _OF_GO.search(text):
        raise ValueError(
            f"{path}: is a template in Go, as Ollama has them; take the one in Jinja of the model's own "
            "folder (chat_template.jinja, or chat_template in tokenizer_config.json)"
        )
    if not _OF_JINJA.search(text):
        raise ValueError(
            f"{path}: has nothing in double braces, so that no prompt would stand in it; write a chat "
            "template in Jinja, which loops over messages"
        )
    return text


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _as_rendered(template: str | None) -> str:
    """A chat template without the line end at its end, which Jinja drops, and editors add."""
    return (template or "").removesuffix("\n")


def _check_one_template(folder: Path) -> None:
    templates = _chat_templates(folder)
    for name, template in templates.items():
        used = next(iter(templates))
        if template.strip() != templates[used].strip():
            raise ValueError(
                f"{folder / name}: chat_template is not that of {used} beside it, and would be ignored; "
                "remove one of the two"
            )
    if list(templates) == [_OF_PROCESSORS]:
        raise ValueError(
            f"{folder / _OF_PROCESSORS}: the chat template is where processors of images and text have it, "
            "and tokenizers do not read it; write it into chat_template.jinja beside it"
        )


def _chosen_template(given: Any) -> str | None:
    """A chat template as tokenizer_config.json holds it: one text, or named ones."""
    if isinstance(given, list):  # transformers takes the one of this name
        given = {entry["name"]: entry["template"] for entry in given}.get("default")
    return None if given is None else str(given)


def _vocabulary(tokenizer: Json) -> dict[str, object]:
    """Id of every token, as JSON gives it."""
    vocabulary = tokenizer.get("model", {}).get("vocab", {})
    if isinstance(vocabulary, list):  # pairs of a token and its score
        vocabulary = {
            entry[0] if isinstance(entry, list) else entry: i for i, entry in enumerate(vocabulary)
        }
    added = {entry["content"]: entry["id"] for entry in tokenizer.get("added_tokens", [])}
    return {**vocabulary, **added}


def chat_template_of(folder: Path) -> str | None:
    """The chat template that transformers takes of a folder; None if it has none."""
    return next(iter(_chat_templates(folder).values()), None)


def _chat_templates(folder: Path) -> dict[str, str]:
    """Chat templates of a folder by the file that holds them; transformers takes the first."""
    found = {}
    separate = folder / "chat_template.jinja"
    if separate.is_file():
        found[separate.name] = separate.read_text("utf-8")
    for name in ("tokenizer_config.json", _OF_PROCESSORS):
        settings = folder / name
        if settings.is_file():
            template = _chosen_template(read_json(settings).get("chat_template"))
            if template is not None:
                found[name] = template
    return found


def base_named_otherwise(folder: str | Path, names: Iterable[str]) -> str | None:
    """The base that an adapter names, if it is none of ``names``; folders and owners do not count."""
    settings = read_json(Path(folder) / "adapter_config.json")
    named = settings.get("base_model_name_or_path")
    if not named:
        return None
    last = str(named).rstrip("/").rpartition("/")[2]
    known = {name.rstrip("/").rpartition("/")[2].lower() for name in names}
    return None if last.lower() in known else str(named)


def refuse_differences(folder: str | Path, **differences: Collection[str]) -> None:
    """Stop where names of weights differ from what is needed.

    Args:
        folder: what they were read from.
        differences: names by the way in which they differ.

    Raises:
        ValueError: there are any; the message has the first of each kind.
    """
    found = [
        f"{len(names)} {kind}, first {min(map(str, names))}"
        for kind, names in differences.items()
        if names
    ]
    fix = "save the whole model of this architecture anew, or correct the folder"
    if any(_RESIZED.search(str(name)) for names in differences.values() for name in names):
        fix = _RESIZE
    if found:
        raise ValueError(
            f"{folder}: its weights are not those of the model ({'; '.join(found)}); {fix}"
        )


def read_json(path: Path) -> Json:
    """The object that a JSON file holds.

    Raises:
        ValueError: the file is missing, holds something else, or a key twice.
    """
    try:
        content = json.loads(path.read_text("utf-8"), object_pairs_hook=_no_repeats)
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror}); copy it there") from error
    except ValueError as error:
        raise ValueError(f"{path}: is not JSON ({error}); copy the file again") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: holds no JSON object; copy the file again")
    return content


def _no_repeats(pairs: list[tuple[str, Any]]) -> Json:
    content = dict(pairs)
    if len(content) < len(pairs):
        names = [name for name, _ in pairs]
        repeated = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {repeated!r} is there more than once")
    return content


def read_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Shapes of the tensors of a safetensors file by name, out of its header.

    Raises:
        ValueError: the file is cut off or damaged, or a tensor is empty or quantised.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > size - 8:
            raise ValueError(f"{path}: is cut off or no safetensors file; {NO_WEIGHTS}")
        try:
            header = json.loads(file.read(length))
            header.pop("__metadata__", None)
            tensors = {
                name: (str(entry["dtype"]), tuple(map(int, entry["shape"])), *entry["data_offsets"])
                for name, entry in header.items()
            }
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"{path}: its header is damaged; {NO_WEIGHTS}") from error
    end = 0
    for name, (dtype, shape, begin, stop) in tensors.items():
        check_tensor(f"{path}: {name}", dtype, shape)
        if math.prod(shape) * DTYPE_BITS[dtype] != 8 * (stop - begin):
            raise ValueError(f"{path}: {name} has another size than its shape says; {NO_WEIGHTS}")
        end = max(end, stop)
    if 8 + length + end != size:
        raise ValueError(
            f"{path}: has {size} bytes, {8 + length + end} by its header; {NO_WEIGHTS}"
        )
    return {name: shape for name, (_, shape, _, _) in tensors.items()}


def check_tensor(where: str, dtype: str, shape: tuple[int, ...]) -> None:
    """Check that a tensor holds numbers, and numbers that are not quantised.

    Args:
        where: file and name, for messages.
        dtype: as safetensors files call it.

    Raises:
        ValueError: it does not.
    """
    if 0 in shape:
        raise ValueError(
            f"{where} is empty, as training with ZeRO-3 leaves it; gather the weights when saving "
            "(stage3_gather_16bit_weights_on_model_save), or run zero_to_fp32.py"
        )
    is_whole_numbers = dtype[0] in "BIU" and dtype != "BF16" and where.endswith(".weight")
    if dtype not in DTYPE_BITS or is_whole_numbers:
        raise ValueError(
            f"{where} is in {dtype}, a quantised format; save it in float32, float16 or bfloat16"
        )
