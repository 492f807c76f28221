"""Model and checkpoint folders as users bring them: what is not whole, or not what it seems, is refused."""

import json
import shutil

import pytest
import torch
from bad_input import refused
from peft import PEFT_TYPE_TO_CONFIG_MAPPING
from safetensors.torch import load_file, save_file
from tiny_models import build_model, have_equal_weights
from transformers import (
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    BartConfig,
    BertConfig,
    GPT2Config,
    GPT2LMHeadModel,
    T5Config,
)

from sft_interactions.models.checkpoint_files import (
    SCALES,
    SILENT_SETTINGS,
    check_checkpoint,
    check_model,
    check_own_tokenizer,
    check_template_file,
    check_tokenizer,
    files_of,
    read_shapes,
)
from sft_interactions.models.loading import check_fit, load_base, load_checkpoint
from sft_interactions.models.tokenizing import load_tokenizer

CPU = torch.device("cpu")


@pytest.fixture
def folder(model_folders, tmp_path):
    """A copy of the folder of the tiny Llama, to be spoilt."""
    return shutil.copytree(model_folders["llama"], tmp_path / "model")


def rewrite(folder, change):
    path = folder / "model.safetensors"
    save_file(change(load_file(path)), path, metadata={"format": "pt"})


def reconfigure(folder, **settings):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))


def reconfigure_tokenizer(folder, **settings):
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))


def shard(folder):
    """Divide the weights into two files with an index."""
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(weights)
    parts = {"model-00001-of-00002.safetensors": names[:9]}
    parts["model-00002-of-00002.safetensors"] = names[9:]
    for file, own in parts.items():
        save_file({name: weights[name] for name in own}, folder / file, metadata={"format": "pt"})
    places = {name: file for file, own in parts.items() for name in own}
    index = {"metadata": {}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def truncate(path):
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])


def test_whole_folders_are_right(folder, tiny_models):
    check_model(folder)
    assert have_equal_weights(load_base(folder), tiny_models["llama"])
    shard(folder)
    check_model(folder)
    assert have_equal_weights(load_base(folder), tiny_models["llama"])


def test_a_bin_file(folder, tiny_models):
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    check_fit(folder)
    assert have_equal_weights(load_base(folder), tiny_models["llama"])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_read_as_it_is(folder, tiny_models, dtype):
    rewrite(folder, lambda weights: {name: w.to(dtype) for name, w in weights.items()})
    for name, weight in load_base(folder).state_dict().items():
        assert weight.dtype == torch.float32
        assert torch.equal(weight, tiny_models["llama"].state_dict()[name].to(dtype).float())


def test_a_byte_order_mark_of_other_texts_does_no_harm(folder):
    (folder / "LICENSE.txt").write_text("MIT", "utf-8-sig")
    check_model(folder)


def test_links_that_are_not_read_may_lead_nowhere(folder):
    (folder / "README.md").symlink_to("../../blobs/2")
    check_model(folder)
    load_tokenizer(folder)


@pytest.mark.bad_input(of="folder")
def test_a_checkpoint_whose_folder_is_a_link_to_nothing_is_told(folder, tmp_path):
    (tmp_path / "step-5").symlink_to(tmp_path / "gone")
    with refused(r"step-5: is a link to .*gone, which is not there; copy"):
        check_checkpoint(tmp_path / "step-5", folder)


@pytest.mark.bad_input(of="folder")
def test_a_tokenizer_whose_file_is_a_link_to_nothing_is_told(folder):
    """As in a model folder of a study, after the cache that it leads into was emptied."""
    linked_to_nothing("tokenizer.json")(folder)
    with refused(r"tokenizer\.json: is a link to .*; copy what it led to"):
        load_tokenizer(folder)


def test_the_files_that_count(folder):
    (folder / "optimizer.pt").touch()
    (folder / "training_args.bin").touch()
    (folder / "README.md").touch()
    names = {path.name for path in files_of(folder)}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= names
    assert not names & {"optimizer.pt", "training_args.bin", "README.md"}


def unlink(*names):
    return lambda folder: [(folder / name).unlink() for name in names]


def write(name, text):
    return lambda folder: (folder / name).write_text(text)


def sharded(change):
    def spoil(folder):
        shard(folder)
        change(folder)

    return spoil


def mark(name, codec="utf-8-sig"):
    """Save a file again, as an editor does that writes a byte order mark."""

    def spoil(folder):
        path = folder / name
        path.write_bytes(path.read_text("utf-8").encode(codec))

    return spoil


def index_of(change):
    def spoil(folder):
        path = folder / "model.safetensors.index.json"
        index = json.loads(path.read_text())
        change(index["weight_map"])
        path.write_text(json.dumps(index))

    return sharded(spoil)


def edit_header(folder, old, new):
    path = folder / "model.safetensors"
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new, 1))


def training_state(name):
    def spoil(folder):
        (folder / "model.safetensors").unlink()
        (folder / name).mkdir()

    return spoil


def bin_in_a_folder(folder):
    """As zero_to_fp32.py of DeepSpeed makes it, which takes the name that it is given for a folder's."""
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").mkdir()
    torch.save({}, folder / "pytorch_model.bin" / "pytorch_model.bin")


def also_bin(folder):
    torch.save({}, folder / "pytorch_model.bin")


def linked_to_nothing(name):
    """As where a folder of the hub's cache was copied alone."""

    def spoil(folder):
        (folder / name).unlink()
        (folder / name).symlink_to("../../blobs/1")

    return spoil


def only_bin(folder):
    torch.save({}, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    truncate(folder / "pytorch_model.bin")


FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
QUANTISED = {"quant_method": "bitsandbytes", "load_in_4bit": True}


def merged_into_four_bits(folder):
    """What bitsandbytes leaves: numbers of four bits, and what scales them."""

    def change(weights):
        packed = {name: torch.zeros(8, dtype=torch.uint8) for name in weights if "q_proj" in name}
        return {**weights, **packed, **{f"{name}.absmax": torch.ones(1) for name in packed}}

    rewrite(folder, change)
    reconfigure(folder, quantization_config=QUANTISED)


def scaled(folder):
    """Weights that something beside them scales, as of compressed-tensors or GPTQ."""
    rewrite(folder, lambda weights: {**weights, "model.norm.weight_scale": torch.ones(1)})
    reconfigure(folder, quantization_config={"quant_method": "compressed-tensors"})


SPOILT_FILES = {
    "no config": (
        unlink("config.json"),
        r"config\.json: is missing, .*; copy that of the model that",
    ),
    "an adapter alone": (
        lambda f: ((f / "config.json").unlink(), (f / "adapter_config.json").write_text("{}")),
        "holds an adapter and no model; name the model that it is added to, or, .* merge it",
    ),
    "a config cut off": (write("config.json", '{"model_type'), r"config\.json: is not JSON"),
    "a key twice": (
        lambda f: (f / "config.json").write_text(
            (f / "config.json").read_text().rstrip()[:-1] + ', "rms_norm_eps": 0.5}'
        ),
        r"config\.json: is not JSON \(the key 'rms_norm_eps' is there more than once\)",
    ),
    "a byte order mark": (
        mark("config.json"),
        r"config\.json: begins with a byte order mark, .*; save it as UTF-8 without one$",
    ),
    "a byte order mark of UTF-16": (
        mark("config.json", "utf-16"),
        r"config\.json: begins with a byte order mark",
    ),
    "a marked tokenizer": (mark("tokenizer.json"), r"tokenizer\.json: begins with a byte order"),
    "a marked template": (
        mark("chat_template.jinja"),
        r"template\.jinja: begins with a byte order",
    ),
    "a list for a config": (write("config.json", "[]"), r"config\.json: holds no JSON object"),
    "no weights": (unlink("model.safetensors"), r"the weights are missing"),
    "ZeRO-3": (training_state("global_step500"), r"global_step500 is a part.*zero_to_fp32"),
    "FSDP": (training_state("pytorch_model_fsdp_0"), r"fsdp_0 is a part.*merge-weights"),
    "verl": (training_state("model_world_size_2_rank_0.pt"), r"is a part of .*verl\.model_merger"),
    "a folder of weights": (
        bin_in_a_folder,
        r"pytorch_model\.bin: is a folder, .*; move what is in",
    ),
    "half a file": (lambda f: truncate(f / "model.safetensors"), r"has \d+ bytes, \d+ by its"),
    "a file of a few bytes": (write("model.safetensors", "abc"), r"is cut off or no safetensors"),
    "a damaged header": (
        write("model.safetensors", '\7\0\0\0\0\0\0\0{"x":1}'),
        r"its header is damaged",
    ),
    "another size in the header": (
        lambda f: edit_header(f, b"[32]", b"[31]"),
        r"has another size than its shape says",
    ),
    "a link to nothing": (
        lambda f: (unlink("model.safetensors")(f), (f / "model.safetensors").symlink_to("nothing")),
        r"model\.safetensors: is a link to nothing, which is not there; copy what it",
    ),
    "a bin shard missing": (
        lambda f: (
            unlink("model.safetensors")(f),
            write("pytorch_model.bin.index.json", '{"weight_map": {"a": "pytorch_model-1.bin"}}')(
                f
            ),
        ),
        r"pytorch_model-1\.bin, which it lists, is missing",
    ),
    "bytes in quantised matrices": (
        lambda f: rewrite(f, lambda ws: {n: w.to(torch.int8) for n, w in ws.items()}),
        r"in I8, a quantised format",
    ),
    "signs for numbers": (
        lambda f: rewrite(f, lambda weights: {name: w > 0 for name, w in weights.items()}),
        r"in BOOL, a quantised format",
    ),
    "no header": (write("model.safetensors", "\2\0\0\0\0\0\0\0{["), r"its header is damaged"),
    "Git LFS": (
        write("model.safetensors", "version https://git-lfs.github.com/spec/v1\noid sha256:1"),
        r"is a pointer of Git LFS.*git lfs pull",
    ),
    "half a bin file": (only_bin, r"pytorch_model\.bin: is cut off"),
    "two sets": (also_bin, r"model\.safetensors and pytorch_model\.bin are both there"),
    "whole and sharded": (
        sharded(lambda f: shutil.copy(f / FIRST, f / "model.safetensors")),
        r"model\.safetensors and model\.safetensors\.index\.json are both there",
    ),
    "a whole file and shards without an index": (
        lambda f: shutil.copy(f / "model.safetensors", f / FIRST),
        rf"model\.safetensors and {FIRST} are both there",
    ),
    "a shard missing": (sharded(unlink(SECOND)), rf"{SECOND}, which it lists, is missing"),
    "a shard cut off": (sharded(lambda f: truncate(f / SECOND)), rf"{SECOND}: has \d+ bytes"),
    "a shard too many": (
        sharded(lambda f: shutil.copy(f / FIRST, f / "model-00003-of-00003.safetensors")),
        r"does not list model-00003-of-00003",
    ),
    "index without a tensor": (
        index_of(lambda places: places.pop("model.norm.weight")),
        r"model\.norm\.weight is in its files, but not listed",
    ),
    "index with another tensor": (
        index_of(lambda places: places.update({"model.score": FIRST})),
        r"model\.score is not in its files",
    ),
    "an index of nothing": (index_of(lambda places: places.clear()), r"lists no weights"),
    "empty tensors": (
        lambda f: rewrite(f, lambda weights: {name: torch.zeros(0) for name in weights}),
        r"is empty, as training with ZeRO-3",
    ),
    "torch.compile": (
        lambda f: rewrite(f, lambda weights: {f"_orig_mod.{n}": w for n, w in weights.items()}),
        r"names of the weights begin with _orig_mod\.",
    ),
    "DDP": (
        lambda f: rewrite(f, lambda weights: {f"module.{n}": w for n, w in weights.items()}),
        r"names of the weights begin with module\.",
    ),
    "TRL's PPO": (
        lambda f: rewrite(
            f, lambda weights: {f"pretrained_model.{n}": w for n, w in weights.items()}
        ),
        r"names of the weights begin with pretrained_model\.",
    ),
    "a value head": (
        lambda f: rewrite(
            f, lambda weights: {**weights, "v_head.summary.weight": torch.ones(1, 32)}
        ),
        r"holds the value head of a training by PPO \(v_head\.summary\.weight\).*; save the policy alone",
    ),
    "shards without their index": (
        lambda f: (f / "model.safetensors").rename(f / "ft-model-00001-of-00001.safetensors"),
        r"the weights are missing .*; copy the index too, which lists ft-model-00001-of-00001\.safe",
    ),
    "a second copy of a browser": (
        lambda f: (f / "model.safetensors").rename(f / "model (1).safetensors"),
        r"the weights are missing .*; rename model \(1\)\.safetensors, if it holds them",
    ),
    "a link of the tokenizer to nothing": (
        linked_to_nothing("tokenizer.json"),
        r"tokenizer\.json: is a link to \.\./\.\./blobs/1, which is not there; copy what it",
    ),
    "4 bits": (
        merged_into_four_bits,
        r"the weights are quantised \(bitsandb.*\); de-quantise them",
    ),
    "scales": (scaled, r"the weights are quantised \(compressed-tensors\); de-quantise them"),
    "whole weights of a base in 4 bits": (
        lambda f: reconfigure(f, quantization_config=QUANTISED),
        r"quantization_config says bitsandbytes, but the weights .* are not quantised.*; drop that key",
    ),
    "8 bits": (
        lambda f: rewrite(f, lambda ws: {n: w.to(torch.float8_e5m2) for n, w in ws.items()}),
        r"in F8_E5M2, a quantised format",
    ),
    "an adapter beside": (
        write("adapter_config.json", "{}"),
        r"adapter_config\.json lies beside config\.json",
    ),
    "a padding token beyond the last": (
        lambda f: reconfigure(f, pad_token_id=320),
        r"config\.json: pad_token_id is 320, but the model has 320 embeddings .*; set it to null",
    ),
    "a padding token beyond the last of the language model": (
        lambda f: reconfigure(f, text_config={"vocab_size": 64}, pad_token_id=64),
        r"pad_token_id is 64, but the model has 64 embeddings",
    ),
    "attention of another package": (
        lambda f: reconfigure(f, _attn_implementation="flash_attention_2"),
        r"config\.json: _attn_implementation is flash_attention_2, .*; drop that key, or write sdpa$",
    ),
    "attention of the hub": (
        lambda f: reconfigure(f, attn_implementation="kernels-community/flash-attn2"),
        r"attn_implementation is kernels-community/flash-attn2, .* float32; drop that key",
    ),
    "attention of another package, of the language model": (
        lambda f: reconfigure(f, text_config={"attn_implementation": "flash_attention_3"}),
        r"attn_implementation is flash_attention_3, .*; drop that key",
    ),
    "a classifier": (
        lambda f: reconfigure(f, architectures=["LlamaForSequenceClassification"]),
        r"LlamaForSequenceClassification is not a causal LM",
    ),
    "a masked LM": (
        lambda f: reconfigure(f, architectures=["BertForMaskedLM"]),
        r"BertForMaskedLM is not a causal LM",
    ),
    "a model with a value head": (
        lambda f: reconfigure(f, architectures=["AutoModelForCausalLMWithValueHead"]),
        r"WithValueHead is not a causal LM",
    ),
    "an encoder and a decoder": (
        lambda f: reconfigure(f, is_encoder_decoder=True),
        r"has an encoder and a decoder",
    ),
}


@pytest.mark.bad_input(of="folder")
@pytest.mark.parametrize("case", SPOILT_FILES)
def test_spoilt_files_are_refused_by_their_headers(folder, case):
    spoil, message = SPOILT_FILES[case]
    spoil(folder)
    with refused(message) as caught:
        check_model(folder)
    assert str(folder) in str(caught.value)
    assert "; " in str(caught.value)
    assert "\n" not in str(caught.value)


def without(part):
    return lambda weights: {name: w for name, w in weights.items() if part not in name}


SPOILT_WEIGHTS = {
    "no head": (without("lm_head"), r"1 missing, first lm_head\.weight"),
    "no layer": (without("layers.1."), r"9 missing, first model\.layers\.1\."),
    "no norm": (without("model.norm"), r"1 missing, first model\.norm\.weight"),
    "a layer too many": (
        lambda weights: {**weights, "model.layers.2.mlp.up_proj.weight": torch.zeros(48, 32)},
        r"1 unexpected, first model\.layers\.2",
    ),
    "a classifier's head": (
        lambda weights: {**weights, "score.weight": torch.zeros(2, 32)},
        r"1 unexpected, first score\.weight",
    ),
    "another prefix": (
        lambda weights: {f"policy.{name}": w for name, w in weights.items()},
        r"21 missing, .* 21 unexpected, first policy\.",
    ),
    "a model without its head": (
        lambda weights: {
            name.removeprefix("model."): w for name, w in without("lm_")(weights).items()
        },
        r"1 missing, first lm_head\.weight",
    ),
    "a resized embedding": (
        lambda weights: {**weights, "model.embed_tokens.weight": torch.zeros(324, 32)},
        r"1 mismatched, first model\.embed_tokens\.weight \(324, 32\)",
    ),
    "adapters that were never merged": (
        lambda weights: {
            name.replace("q_proj.w", "q_proj.base_layer.w"): w for name, w in weights.items()
        },
        r"2 missing, .*2 unexpected, first .*base_layer",
    ),
}


@pytest.mark.bad_input(of="folder")
@pytest.mark.parametrize("case", SPOILT_WEIGHTS)
def test_weights_that_do_not_fit_are_refused(folder, case):
    change, message = SPOILT_WEIGHTS[case]
    rewrite(folder, change)
    for check in (check_fit, load_base):
        with refused(message) as caught:
            check(folder)
        assert str(folder) in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.bad_input(of="folder")
def test_two_bases_of_rotary_positions_are_refused(folder):
    reconfigure(folder, rope_theta=10000.0)
    check_model(folder)
    reconfigure(folder, rope_theta=500000.0)
    with refused(r"rope_theta is 500000.0, and 10000.0 in rope_parameters"):
        check_model(folder)


@pytest.mark.parametrize("name", ["rope_scaling", None])
def test_the_base_of_rotary_positions_as_transformers_4_writes_it(folder, name):
    path = folder / "config.json"
    settings = json.loads(path.read_text())
    del settings["rope_parameters"]
    path.write_text(json.dumps(settings))
    reconfigure(folder, rope_theta=500.0, **({name: None} if name else {}))
    model = load_base(folder)
    expected = 500.0 ** -(torch.arange(0, 8, 2) / 8)
    assert torch.allclose(model.model.rotary_emb.inv_freq, expected)


@pytest.mark.bad_input(of="folder")
def test_code_of_a_models_own_is_refused(folder):
    """Transformers would take the class that it has for the model type."""
    reconfigure(folder, architectures=["LLaMAForCausalLM"])  # how it was written once
    check_fit(folder)
    own = "MyLlamaForCausalLM"
    reconfigure(folder, architectures=[own], auto_map={"AutoModelForCausalLM": f"code.{own}"})
    for check in (check_fit, load_base):
        with refused(r"has no MyLlamaForCausalLM, .* take LlamaForCausalLM") as caught:
            check(folder)
        assert str(folder) in str(caught.value)


@pytest.mark.parametrize(
    "settings", [{"return_dict": False}, {"output_attentions": True, "output_hidden_states": True}]
)
def test_what_a_trainer_asks_models_to_return_changes_nothing(folder, tiny_models, settings):
    reconfigure(folder, **settings, use_cache=False)
    ids = torch.arange(1, 9)[None]
    with torch.inference_mode():
        logits = load_checkpoint(folder, folder, CPU)(input_ids=ids).logits
        assert torch.equal(logits, tiny_models["llama"](input_ids=ids).logits)


@pytest.mark.bad_input(of="folder")
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(folder, value):
    def change(weights):
        weights["model.norm.weight"][3] = value
        return weights

    rewrite(folder, change)
    with refused(r"model\.norm\.weight holds values that are not finite"):
        load_base(folder)


def test_a_tied_head_that_has_weights_of_its_own_is_not_lost(folder):
    """The config says tied, the file holds two different matrices."""
    reconfigure(folder, tie_word_embeddings=True)
    weights = load_file(folder / "model.safetensors")
    model = load_base(folder)
    assert torch.equal(model.lm_head.weight, weights["lm_head.weight"])
    assert torch.equal(model.model.embed_tokens.weight, weights["model.embed_tokens.weight"])


SIZES = {"vocab_size": 64, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
BERT = {**SIZES, "intermediate_size": 16}
BART = {
    "vocab_size": 64,
    "d_model": 16,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 16,
    "decoder_ffn_dim": 16,
    "max_position_embeddings": 32,
    "forced_eos_token_id": None,
}
T5 = {"vocab_size": 64, "d_model": 16, "d_kv": 8, "num_layers": 1, "num_heads": 2, "d_ff": 16}
OTHER_MODELS = {
    "BERT": lambda: AutoModelForMaskedLM.from_config(BertConfig(**BERT)),
    "BERT as a causal LM that is not one": lambda: AutoModelForCausalLM.from_config(
        BertConfig(**BERT, initializer_range=0.5)
    ),
    "a classifier": lambda: AutoModelForSequenceClassification.from_config(
        build_model("llama").config
    ),
    "BART": lambda: AutoModelForSeq2SeqLM.from_config(BartConfig(**BART)),
    "T5": lambda: AutoModelForSeq2SeqLM.from_config(T5Config(**T5)),
}


@pytest.mark.bad_input(of="folder")
@pytest.mark.parametrize("case", OTHER_MODELS)
def test_other_models_than_causal_lms_are_refused(tmp_path, case):
    torch.manual_seed(0)
    OTHER_MODELS[case]().save_pretrained(tmp_path)
    with refused(r"causal LM") as caught:
        load_base(tmp_path)
    assert "\n" not in str(caught.value)


def test_bert_with_a_causal_mask_is_a_causal_lm(tmp_path):
    config = BertConfig(**BERT, is_decoder=True, initializer_range=0.5)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    assert load_base(tmp_path).config.is_decoder


@pytest.mark.bad_input(of="folder")
def test_an_unknown_architecture_is_named(folder):
    reconfigure(folder, model_type="llama9", auto_map={"AutoModelForCausalLM": "modeling.Llama9"})
    with refused("transformers cannot load it as a causal LM") as caught:
        check_fit(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.bad_input(of="folder")
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model_type": "qwen2"}, "model_type is qwen2, that of the model before SFT is llama"),
        ({"num_hidden_layers": 3}, "num_hidden_layers is 3, that of the model before SFT is 2"),
        ({"vocab_size": 324}, "vocab_size is 324, that of the model before SFT is 320"),
    ],
)
def test_full_weights_are_of_the_model_before_sft(model_folders, folder, settings, message):
    check_checkpoint(folder, model_folders["llama"])
    (folder / "tokenizer.json").unlink(missing_ok=True)
    reconfigure(folder, **settings)
    with refused(message):
        load_checkpoint(model_folders["llama"], folder, CPU)


def write_lora(folder, matrix, shape, module="model.layers.1.self_attn.q_proj", named="org/other"):
    folder.mkdir(exist_ok=True)
    settings = {"peft_type": "LORA", "lora_alpha": 2, "base_model_name_or_path": named}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    name = f"base_model.model.{module}.lora_{matrix}.weight"
    save_file({name: torch.ones(shape)}, folder / "adapter_model.safetensors")
    return folder


@pytest.mark.bad_input(of="folder")
@pytest.mark.parametrize(("matrix", "shape"), [("A", (2, 63)), ("B", (63, 2))])
@pytest.mark.parametrize(
    ("named", "told"), [("org/other", "was trained on org/other"), (None, "is of another model")]
)
def test_lora_of_another_base_is_told_by_its_sizes(
    model_folders, tmp_path, matrix, shape, named, told
):
    adapter = write_lora(tmp_path / "adapter", matrix, shape, named=named)
    check_checkpoint(adapter)
    with refused(
        rf"{shape[0]} x {shape[1]}, and \d+ x \d+ are .*, so the adapter {told}; name the mod"
    ):
        check_checkpoint(adapter, model_folders["llama"])


NEEDED_SETTINGS = [
    *SCALES.items(),
    *((kind, key) for kind, keys in SILENT_SETTINGS.items() for key in keys),
]


@pytest.mark.bad_input(of="folder")
@pytest.mark.parametrize(("peft_type", "key"), NEEDED_SETTINGS)
def test_no_setting_that_an_adapter_depends_on_is_a_default_of_peft(tmp_path, peft_type, key):
    settings = PEFT_TYPE_TO_CONFIG_MAPPING[peft_type]
    needed = {name: getattr(settings, name) for kind, name in NEEDED_SETTINGS if kind == peft_type}
    path = tmp_path / "adapter_config.json"
    save_file({"x": torch.ones(1)}, tmp_path / "adapter_model.safetensors")
    path.write_text(json.dumps({"peft_type": peft_type, **needed}))
    check_checkpoint(tmp_path)
    del needed[key]
    path.write_text(json.dumps({"peft_type": peft_type, **needed}))
    with refused(rf"adapter_config\.json: {key} is missing, .* that it was trained with"):
        check_checkpoint(tmp_path)


@pytest.mark.parametrize("peft_type", ["RANDLORA", "VERA"])
def test_random_matrices_that_are_saved_need_no_seed(tmp_path, peft_type):
    settings = {"peft_type": peft_type, "save_projection": True, "randlora_alpha": 640}
    (tmp_path / "adapter_config.json").write_text(json.dumps(settings))
    save_file({"x": torch.ones(1)}, tmp_path / "adapter_model.safetensors")
    check_checkpoint(tmp_path)


@pytest.mark.parametrize("module", ["model.layers.1.self_attn.q_proj", "lm_head", "model.other"])
def test_lora_that_fits_or_whose_weights_are_not_known_is_not_refused(
    model_folders, tmp_path, module
):
    size = 32 if module.startswith("model.layers") else 5
    for matrix, shape in (("A", (2, size)), ("B", (size, 2))):
        adapter = write_lora(tmp_path / matrix, matrix, shape, module)
        check_checkpoint(adapter, model_folders["llama"])


def test_lora_of_weights_that_have_their_inputs_first_is_not_refused(tmp_path):
    config = GPT2Config(n_embd=8, n_head=2, n_layer=1, vocab_size=10, n_positions=8)
    GPT2LMHeadModel(config).save_pretrained(tmp_path / "gpt2")
    module = "transformer.h.0.attn.c_attn"
    adapter = write_lora(tmp_path / "adapter", "B", (24, 2), module)
    check_checkpoint(adapter, tmp_path / "gpt2")


@pytest.mark.bad_input(of="folder")
def test_an_adapter_among_full_weights_is_refused(folder):
    (folder / "adapter_config.json").write_text("{}")
    save_file({"x": torch.zeros(1)}, folder / "adapter_model.safetensors")
    message = r"holds an adapter \(adapter_model\.safetensors\) and full weights \(model\.safetens"
    with refused(message):
        check_checkpoint(folder)


@pytest.mark.bad_input(of="folder")
def test_a_folder_of_another_kind(tmp_path):
    with refused("no such folder; correct the path"):
        check_checkpoint(tmp_path / "nothing")
    with refused(r"neither adapter_config\.json .* name a checkpoint fold"):
        check_checkpoint(tmp_path)
    (tmp_path / "checkpoint-9").mkdir()
    (tmp_path / "checkpoint-9" / "config.json").write_text("{}")
    with refused(r"; name .*checkpoint-9$"):
        check_checkpoint(tmp_path)


@pytest.mark.bad_input(of="folder")
def test_settings_of_an_adapter_with_a_byte_order_mark_are_refused(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}", "utf-8-sig")
    with refused(r"adapter_config\.json: begins with a byte order mark"):
        check_checkpoint(tmp_path)


@pytest.mark.bad_input(of="folder")
def test_the_folder_of_a_models_cache(folder, tmp_path):
    """As the hub's client makes it."""
    cache = tmp_path / "models--org--name"
    (cache / "snapshots").mkdir(parents=True)
    inner = folder.rename(cache / "snapshots" / "0123abcd")
    check_model(inner)
    for check in (check_model, check_checkpoint):
        with refused(rf"^{cache}: .*; name {inner}$"):
            check(cache)


@pytest.mark.bad_input(of="folder")
def test_an_adapter_without_its_weights(tmp_path):
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    with refused(r"weights are missing \(adapter_model\.safetensors"):
        check_checkpoint(tmp_path)
    (tmp_path / "global_step5").mkdir()
    with refused("global_step5 is a part of a training state"):
        check_checkpoint(tmp_path)


def edit_json(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.mark.bad_input(of="folder")
def test_another_tokenizer_is_refused(model_folders, folder):
    base = model_folders["llama"]
    check_tokenizer(folder, base, compare_template=True)
    token = {"id": 320, "content": "<extra>", "special": True}
    edit_json(folder / "tokenizer.json", lambda t: t["added_tokens"].append(token))
    with refused(r"vocabulary is not that of .*token '<extra>'") as caught:
        check_tokenizer(folder, base, compare_template=False)
    assert str(folder / "tokenizer.json") in str(caught.value)
    assert str(base / "tokenizer.json") in str(caught.value)
    (folder / "tokenizer.json").unlink()
    check_tokenizer(folder, base, compare_template=True)


@pytest.mark.bad_input(of="folder")
def test_a_tokenizer_that_cuts_words_by_chance_is_refused(model_folders, folder):
    check_own_tokenizer(folder, reads_template=True)
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text())
    content["model"]["dropout"] = 0.1
    path.write_text(json.dumps(content))
    message = r"tokenizer\.json: dropout is 0\.1, .* set it to null"
    with refused(message):
        check_own_tokenizer(folder, reads_template=False)
    with refused(message):
        check_tokenizer(folder, model_folders["llama"], compare_template=False)


@pytest.mark.bad_input(of="folder")
def test_a_tokenizer_of_sentencepiece_alone_is_refused(folder):
    """As older trainers leave it."""
    (folder / "tokenizer.model").write_bytes(b"x")
    check_own_tokenizer(folder, reads_template=True)
    kept = (folder / "tokenizer.json").rename(folder / "kept")
    for read in (load_tokenizer, lambda place: check_own_tokenizer(place, reads_template=False)):
        with refused(
            r"tokenizer\.model: is there without tokenizer\.json, .*; copy that of the mod"
        ):
            read(folder)
    kept.rename(folder / "tokenizer.json")
    load_tokenizer(folder)


TEMPLATE = "{% for m in messages %}{{ m.content }}{% endfor %}"
OTHER_TEMPLATES = {
    "a tokenizer's settings": (
        json.dumps({"chat_template": TEMPLATE}),
        "is JSON, .*; write the text",
    ),
    "a text of JSON": (json.dumps(TEMPLATE), "is JSON"),
    "Ollama's": ("{{ if .System }}{{ .System }}{{ end }}{{ .Prompt }}", "is a template in Go"),
    "Ollama's, with other blanks": (
        "{{- range .Messages }}{{.Content}}{{ end }}",
        "is a template in",
    ),
    "of str.format": ("[INST] {prompt} [/INST]", "has nothing in double braces, .*; write a chat"),
    "empty": ("", "has nothing in double braces"),
    "marked": ("\ufeff" + TEMPLATE, "begins with a byte order mark"),
}


@pytest.mark.bad_input(of="folder")
@pytest.mark.parametrize("case", OTHER_TEMPLATES)
def test_a_file_that_is_no_chat_template_is_refused(tmp_path, case):
    text, message = OTHER_TEMPLATES[case]
    path = tmp_path / "chat.jinja"
    path.write_text(text, "utf-8")
    with refused(rf"^{path}: {message}"):
        check_template_file(path)


@pytest.mark.bad_input(of="folder")
def test_a_chat_template_in_another_encoding_is_refused(tmp_path):
    path = tmp_path / "chat.jinja"
    path.write_bytes(TEMPLATE.encode("utf-16"))
    with refused("is not in UTF-8; save it so"):
        check_template_file(path)


@pytest.mark.parametrize("text", [TEMPLATE, "{{ '{\"a\": [1]}' }}", "{%- set x = messages %}"])
def test_a_chat_template_in_jinja_is_read(tmp_path, text):
    path = tmp_path / "chat.jinja"
    path.write_text(text, "utf-8")
    assert check_template_file(path) == text


@pytest.mark.bad_input(of="folder")
def test_two_chat_templates_in_one_folder_are_refused(folder):
    template = (folder / "chat_template.jinja").read_text()
    reconfigure_tokenizer(folder, chat_template=f"{template}\n")
    check_own_tokenizer(folder, reads_template=True)
    reconfigure_tokenizer(folder, chat_template=[{"name": "default", "template": "{{ messages }}"}])
    check_own_tokenizer(folder, reads_template=False)
    with refused(r"tokenizer_config\.json: chat_template is not that of .*; remove one of"):
        check_own_tokenizer(folder, reads_template=True)


@pytest.mark.bad_input(of="folder")
def test_the_chat_template_of_a_processor(model_folders, folder):
    """As older versions of transformers write it for models of images and text."""
    file, separate = folder / "chat_template.json", folder / "chat_template.jinja"
    own = separate.read_text()
    file.write_text(json.dumps({"chat_template": own}))
    check_tokenizer(folder, model_folders["llama"], compare_template=True)
    file.write_text(json.dumps({"chat_template": own + "!"}))
    check_own_tokenizer(folder, reads_template=False)
    with refused(r"chat_template\.json: chat_template is not that of chat_template\.jinja"):
        check_tokenizer(folder, model_folders["llama"], compare_template=True)
    separate.unlink()
    with refused(
        r"chat_template\.json: .* tokenizers do not read it; write it into chat_tem",
    ):
        check_own_tokenizer(folder, reads_template=True)


@pytest.mark.bad_input(of="folder")
def test_another_chat_template_is_refused(model_folders, folder):
    base = model_folders["llama"]
    template = folder / "chat_template.jinja"
    own = template.read_text()
    # Jinja drops one line end at the end, which editors add; git writes those of Windows.
    for same in (own + "\n", own.replace("\n", "\r\n")):
        template.write_bytes(same.encode())
        check_tokenizer(folder, base, compare_template=True)
    template.write_text(own + "!")
    with refused(r"chat template is not that of .*`template` to path:FILE"):
        check_tokenizer(folder, base, compare_template=True)
    check_tokenizer(folder, base, compare_template=False)
    # Where older versions of transformers write it.
    template.unlink()
    for written in (own, [{"name": "default", "template": own}]):
        edit_json(folder / "tokenizer_config.json", lambda t, w=written: t.update(chat_template=w))
        check_tokenizer(folder, base, compare_template=True)
    edit_json(folder / "tokenizer_config.json", lambda t: t.update(chat_template="other"))
    with refused("chat template is not that of"):
        check_tokenizer(folder, base, compare_template=True)


def test_shapes_are_those_of_the_tensors(model_folders):
    path = model_folders["llama"] / "model.safetensors"
    assert read_shapes(path) == {name: tuple(w.shape) for name, w in load_file(path).items()}


def rename(folder, name):
    """Leave the weights alone, under a name of their authors."""
    (folder / "model.safetensors").rename(folder / name)
    (folder / "params.json").write_text("{}")


@pytest.mark.bad_input(of="folder")
@pytest.mark.parametrize("name", ["consolidated.safetensors", "consolidated.00.pth"])
@pytest.mark.parametrize("with_config", [True, False])
@pytest.mark.parametrize("check", [check_model, check_checkpoint])
def test_weights_in_the_format_of_their_authors_are_refused(folder, name, with_config, check):
    rename(folder, name)
    if not with_config:
        (folder / "config.json").unlink()
    with refused(f"{name} is in the format of its authors, .*; take the files"):
        check(folder)


OTHER_PROGRAMS = {
    "lit_model.pth": r"lit_model\.pth is not in the format of transformers; export it",
    "hf_model_0001_0.pt": r"hf_model_0001_0\.pt is not in the format of transformers; export it",
    "epoch=1-step=500.ckpt": r"epoch=1-step=500\.ckpt is not in the format of .*; export it",
    "model.gguf": r"holds model\.gguf, a GGUF file; as the source of a model name that file",
}


@pytest.mark.bad_input(of="folder")
@pytest.mark.parametrize("name", OTHER_PROGRAMS)
@pytest.mark.parametrize("with_config", [True, False])
@pytest.mark.parametrize("check", [check_model, check_checkpoint])
def test_weights_in_the_format_of_another_program_are_refused(folder, name, with_config, check):
    (folder / "model.safetensors").rename(folder / name)
    (folder / "optimizer.pt").touch()
    if not with_config:
        (folder / "config.json").unlink()
    with refused(OTHER_PROGRAMS[name]):
        check(folder)


@pytest.mark.bad_input(of="folder")
@pytest.mark.parametrize("check", [check_model, check_checkpoint])
@pytest.mark.parametrize("inner", ["", "huggingface"])
def test_a_training_in_parts_is_told_beside_its_settings(folder, tmp_path, check, inner):
    """As verl keeps it: config and tokenizer in a folder of their own, which hold no weights."""
    weights = (folder / "model.safetensors").rename(tmp_path / "kept")
    actor = tmp_path / "actor"
    actor.mkdir()
    folder.rename(actor / "huggingface")
    (actor / "model_world_size_2_rank_0.pt").touch()
    with refused(rf"^{actor}: model_world_size_2_rank_0\.pt is a part .*; run .*verl"):
        check(actor / inner)
    weights.rename(actor / "huggingface" / "model.safetensors")
    check(actor / "huggingface")
    with refused(rf"; name {actor}/huggingface$"):
        check(actor)


@pytest.mark.bad_input(of="folder")
def test_states_of_a_training_are_no_weights(folder):
    """What accelerate and the trainer of transformers keep beside them."""
    for name in ("optimizer.bin", "scheduler.bin", "optimizer.pt", "rng_state.pth", "scaler.pt"):
        (folder / name).write_bytes(b"x")
    assert check_checkpoint(folder, folder) == "full"
    (folder / "model.safetensors").unlink()
    with refused(r"the weights are missing .*; copy or train it again"):
        check_checkpoint(folder)


def test_files_of_their_authors_do_no_harm_beside_those_of_transformers(folder, tiny_models):
    shutil.copy(folder / "model.safetensors", folder / "consolidated.safetensors")
    (folder / "params.json").write_text("{}")
    check_model(folder)
    assert have_equal_weights(load_base(folder), tiny_models["llama"])


@pytest.mark.bad_input(of="folder")
def test_adapters_with_names_of_their_own_are_named(tmp_path):
    """PEFT saves each into a folder of its name."""
    for name in ("mine", "reference"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "adapter_config.json").write_text("{}")
    with refused(f"; name {tmp_path}/mine or {tmp_path}/reference$"):
        check_checkpoint(tmp_path)
