import json
import re
from importlib.metadata import version

import gguf
import numpy as np
import pytest
import torch
import transformers
from bad_input import marked, refused
from safetensors.torch import load_file, save_file
from tiny_models import build_model, build_tokenizer, for_images_too, have_equal_weights
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from sft_interactions.data.sources import Source, parse_source
from sft_interactions.models import preparing as models_module
from sft_interactions.models.loading import load_base
from sft_interactions.models.preparing import _unquantized, prepare_model
from sft_interactions.models.tokenizing import load_tokenizer

WORDS = ["<unk>", "<s>", "</s>", "the", "cat", "sat"]


def tiny_model() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        tie_word_embeddings=True,
    )
    return LlamaForCausalLM(config)


@pytest.fixture
def saved_model(tmp_path):
    folder = tmp_path / "saved"
    tiny_model().save_pretrained(folder)
    vocabulary = {word: i for i, word in enumerate(WORDS)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    ).save_pretrained(folder)
    return folder


def prepare(source: str, destination, files=()):
    prepare_model(parse_source(source), files, destination, name="tiny")


def test_folder_is_linked_not_copied(tmp_path, saved_model):
    destination = tmp_path / "models" / "tiny"
    prepare(f"path:{saved_model}", destination)
    link = destination / "model.safetensors"
    assert link.is_symlink()
    assert link.resolve() == saved_model / "model.safetensors"
    assert [p.name for p in destination.parent.iterdir()] == ["tiny"]
    model = AutoModelForCausalLM.from_pretrained(destination)
    assert torch.equal(model.lm_head.weight, tiny_model().lm_head.weight)
    assert AutoTokenizer.from_pretrained(destination)("the cat")["input_ids"] == [3, 4]


def test_links_hold_for_a_relative_path(tmp_path, saved_model, monkeypatch):
    monkeypatch.chdir(tmp_path)
    prepare("path:saved", tmp_path / "deep" / "er" / "tiny")
    assert (tmp_path / "deep" / "er" / "tiny" / "config.json").is_file()


def test_a_tokenizer_of_another_folder_takes_the_place_of_the_models_own(tmp_path, saved_model):
    trained = tmp_path / "checkpoint-9"
    words = [*WORDS[:3], "cat", "the", "sat"]  # other ids
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    own = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )
    own.chat_template = "{{ messages[0].content }}"
    own.save_pretrained(trained)
    destination = tmp_path / "models" / "tiny"
    source = parse_source(f"path:{saved_model}")
    prepare_model(source, (), destination, name="tiny", tokenizer=trained)
    loaded = load_tokenizer(destination)
    assert loaded("the cat")["input_ids"] == [4, 3]
    assert loaded.chat_template == own.chat_template

    template = tmp_path / "own.jinja"
    template.write_text("{{ messages[-1].content }}!")
    prepare_model(source, (), destination, name="tiny", tokenizer=trained, template=template)
    assert load_tokenizer(destination).chat_template == "{{ messages[-1].content }}!"
    assert load_tokenizer(trained).chat_template == own.chat_template
    assert load_tokenizer(saved_model).chat_template is None


def test_an_older_folder_is_replaced(tmp_path, saved_model):
    destination = tmp_path / "tiny"
    destination.mkdir()
    (destination / "stale").touch()
    prepare(f"path:{saved_model}", destination)
    assert not (destination / "stale").exists()


def test_hub_model_is_linked_from_the_cache(tmp_path, saved_model, monkeypatch):
    asked = []
    monkeypatch.setattr(
        models_module, "download_hub_model", lambda source: asked.append(source) or saved_model
    )
    prepare("hub:org/tiny@v1", tmp_path / "tiny")
    assert asked == [Source("hub", "org/tiny", "v1")]
    assert (tmp_path / "tiny" / "model.safetensors").is_symlink()


@pytest.mark.bad_input(of="folder")
@pytest.mark.parametrize(
    ("absent", "message"),
    [
        ("config.json", "models.tiny: .* lacks config.json or weights"),
        ("model.safetensors", "models.tiny: .* lacks config.json or weights"),
        ("tokenizer.json", "models.tiny: .*put config.json, tokenizer.json"),
    ],
)
def test_missing_files_are_named_and_nothing_is_left(tmp_path, saved_model, absent, message):
    (saved_model / absent).unlink()
    with refused(message):
        prepare(f"path:{saved_model}", tmp_path / "models" / "tiny")
    assert list((tmp_path / "models").iterdir()) == []


def rewrite(folder, change):
    path = folder / "model.safetensors"
    save_file(change(load_file(path)), path, metadata={"format": "pt"})


@pytest.mark.bad_input(of="folder")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda weights: {n: w for n, w in weights.items() if "norm" not in n},
            "5 missing, first model.layers.0.input_layernorm.weight",
        ),
        (
            lambda weights: {**weights, "score.weight": torch.zeros(2, 16)},
            "1 unexpected, first score.weight",
        ),
        (
            lambda weights: {f"_orig_mod.{n}": w for n, w in weights.items()},
            "names of the weights begin with _orig_mod",
        ),
    ],
)
def test_weights_that_do_not_fit_are_named(tmp_path, saved_model, change, message):
    rewrite(saved_model, change)
    with refused(rf"^models\.tiny: .*{re.escape(message)}") as caught:
        prepare(f"path:{saved_model}", tmp_path / "models" / "tiny")
    assert str(saved_model) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list((tmp_path / "models").iterdir()) == []


@pytest.mark.bad_input(of="folder")
def test_a_tokenizer_that_cuts_words_by_chance_is_named(tmp_path, saved_model):
    path = saved_model / "tokenizer.json"
    content = json.loads(path.read_text())
    content["model"]["dropout"] = 0.1
    path.write_text(json.dumps(content))
    with refused(r"^models\.tiny: .*dropout is 0\.1, .*; set it to null$"):
        prepare(f"path:{saved_model}", tmp_path / "models" / "tiny")


@pytest.mark.parametrize(
    "use",
    [
        pytest.param("eos_token", marks=pytest.mark.bad_input(of="folder")),
        pytest.param("chat_template", marks=pytest.mark.bad_input(of="folder")),
        "pad_token",
        None,
    ],
)
def test_a_token_in_use_without_an_embedding_is_named(tmp_path, saved_model, use):
    """As trainers leave it that add a token and do not resize the embeddings."""
    tokenizer = AutoTokenizer.from_pretrained(saved_model)
    tokenizer.add_tokens(["<new>"], special_tokens=True)
    n_embeddings = json.loads((saved_model / "config.json").read_text())["vocab_size"]
    assert tokenizer.convert_tokens_to_ids("<new>") == n_embeddings
    if use:
        setattr(tokenizer, use, "<new>")
    tokenizer.save_pretrained(saved_model)
    if use in ("pad_token", None):  # no prompt has either
        prepare(f"path:{saved_model}", tmp_path / "models" / "tiny")
        return
    message = (
        rf"^models\.tiny: .* gives '<new>' the id {n_embeddings}, but .* {n_embeddings} embeddings"
    )
    with refused(message):
        prepare(f"path:{saved_model}", tmp_path / "models" / "tiny")


@pytest.mark.bad_input(of="folder")
@pytest.mark.parametrize("file", ["tokenizer.json", "tokenizer_config.json"])
def test_a_broken_tokenizer_is_refused_in_one_line(tmp_path, saved_model, file):
    (saved_model / file).write_text("{")
    with refused(r"^models\.tiny: .*put config\.json, tokeni") as caught:
        prepare(f"path:{saved_model}", tmp_path / "models" / "tiny")
    assert "\n" not in str(caught.value)


@pytest.mark.bad_input(of="folder")
def test_neither_folder_nor_gguf(tmp_path):
    (tmp_path / "notes.txt").write_text("no model")
    for name in ("absent", "notes.txt"):
        with refused(f"models.tiny: .*{name} is neither a folder nor a GGUF"):
            prepare(f"path:{tmp_path / name}", tmp_path / "tiny")


@pytest.mark.bad_input(of="folder")
def test_pypi_gives_exactly_one_file(tmp_path):
    with refused(r"models.tiny: 0 files came out of pypi:x==1"):
        prepare("pypi:x==1", tmp_path / "tiny")


# Names of tensors in a GGUF file.
GGUF_TENSORS = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
}
GGUF_TENSORS_OF_LAYERS = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def gguf_name(name):
    module, kind = name.rsplit(".", 1)
    if module in GGUF_TENSORS:
        return f"{GGUF_TENSORS[module]}.{kind}"
    _, _, layer, part = module.split(".", 3)
    return f"blk.{layer}.{GGUF_TENSORS_OF_LAYERS[part]}.{kind}"


def write_gguf(path, model, tokenizer, add=lambda writer: None, rules="qwen2"):
    """A Qwen2 as llama.cpp keeps it, matrices in float16; ``add`` may write further entries."""
    config = model.config
    writer = gguf.GGUFWriter(path, "qwen2")
    writer.add_name("tiny")
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    backend = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    tokens = sorted(backend["vocab"], key=backend["vocab"].__getitem__)
    writer.add_tokenizer_model("gpt2")
    if rules:
        writer.add_tokenizer_pre(rules)
    writer.add_token_list(tokens)
    writer.add_token_merges([" ".join(pair) for pair in backend["merges"]])
    add(writer)
    for name, tensor in model.state_dict().items():
        writer.add_tensor(gguf_name(name), tensor.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_gguf_is_parsed_once_and_saved_in_float32(tmp_path, monkeypatch):
    tokenizer = build_tokenizer(300, chat=False, bos=False)
    model = build_model("qwen2", vocab_size=len(tokenizer))
    for parameter in model.parameters():
        if parameter.dim() == 2:
            parameter.data = parameter.data.half()
    write_gguf(tmp_path / "tiny.gguf", model, tokenizer)
    parsed = []
    original = gguf.GGUFReader.__init__

    def count(reader, path, *arguments, **options):
        parsed.append(path)
        original(reader, path, *arguments, **options)

    monkeypatch.setattr(gguf.GGUFReader, "__init__", count)
    prepare("pypi:x==1", tmp_path / "tiny", [tmp_path / "tiny.gguf"])
    assert len(parsed) == 1, (
        f"transformers {transformers.__version__} with gguf {version('gguf')} takes GGUFReader from "
        "elsewhere, so that a file is parsed several times; see _parsing_gguf_once"
    )
    saved = AutoModelForCausalLM.from_pretrained(tmp_path / "tiny", dtype="auto")
    assert saved.dtype == torch.float32
    assert have_equal_weights(saved, model.float())
    text = "She said the film was wonderful"
    found = AutoTokenizer.from_pretrained(tmp_path / "tiny")
    assert found.is_fast
    assert found(text)["input_ids"] == tokenizer(text)["input_ids"]


UNREAD = {
    "factors of rotary positions": (
        lambda writer: writer.add_tensor("rope_freqs.weight", np.ones(4, np.float32)),
        r"tiny\.gguf: rope_freqs\.weight, factors of rotary positions, would be left out; name the saf",
    ),
    "scaled rotary positions": (
        lambda writer: writer.add_rope_scaling_type(gguf.RopeScalingType.YARN),
        r"tiny\.gguf: qwen2\.rope\.scaling\.type is yarn, which would be left out; name the saf",
    ),
    "a factor": (
        lambda writer: writer.add_rope_scaling_factor(4.0),
        r"qwen2\.rope\.scaling\.factor is 4\.0, which",
    ),
    "scaled logits": (
        lambda writer: writer.add_logit_scale(0.5),
        r"qwen2\.logit_scale is 0\.5, which would be left out",
    ),
    "a further tensor": (
        lambda writer: writer.add_tensor("blk.0.attn_q_norm.weight", np.ones(8, np.float32)),
        r"holds (\d+) numbers, of which a Qwen2ForCausalLM takes \d+; name the safetensors",
    ),
    "what changes nothing": (
        lambda writer: (
            writer.add_rope_scaling_type(gguf.RopeScalingType.NONE),
            writer.add_rope_scaling_factor(1.0),
            writer.add_key_length(8),
        ),
        None,
    ),
}


@pytest.mark.parametrize(("add", "message"), marked(UNREAD, of="folder"))
def test_what_transformers_does_not_read_of_a_gguf_is_refused(tmp_path, add, message):
    """Such as the rotary positions of Llama 3.1, of which it takes the default."""
    tokenizer = build_tokenizer(300, chat=False, bos=False)
    write_gguf(tmp_path / "tiny.gguf", build_model("qwen2", len(tokenizer)), tokenizer, add)
    if message is None:
        prepare(f"path:{tmp_path}/tiny.gguf", tmp_path / "tiny")
        return
    with refused(rf"^models\.tiny: .*{message}") as error:
        prepare(f"path:{tmp_path}/tiny.gguf", tmp_path / "tiny")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("rules", "pieces"),
    [
        ("gpt-2", ["a", "Ċ", "Ċ", "512", "Ġb"]),
        ("smollm", ["a", "ĊĊ", "5", "1", "2", "Ġb"]),
        ("starcoder", ["a", "ĊĊ", "5", "1", "2", "Ġb"]),
        ("llama-bpe", ["a", "ĊĊ", "512", "Ġb"]),
        pytest.param("deepseek-llm", None, marks=pytest.mark.bad_input(of="folder")),
        pytest.param(None, None, marks=pytest.mark.bad_input(of="folder")),
    ],
)
def test_texts_are_cut_as_a_gguf_says(tmp_path, rules, pieces):
    """Transformers takes the rules of GPT-2 for all that it does not know."""
    tokenizer = build_tokenizer(300, chat=False, bos=False)
    model = build_model("qwen2", len(tokenizer))
    write_gguf(tmp_path / "tiny.gguf", model, tokenizer, rules=rules)
    if pieces is None:
        with refused(rf"tokenizer\.ggml\.pre is {rules}, rules .*; name the saf"):
            prepare(f"path:{tmp_path}/tiny.gguf", tmp_path / "tiny")
        return
    prepare(f"path:{tmp_path}/tiny.gguf", tmp_path / "tiny")
    cutting = load_tokenizer(tmp_path / "tiny").backend_tokenizer.pre_tokenizer
    assert [piece for piece, _ in cutting.pre_tokenize_str("a\n\n512 b")] == pieces


@pytest.mark.bad_input(of="folder")
def test_broken_gguf_is_named(tmp_path):
    (tmp_path / "broken.gguf").write_bytes(b"GGUF" + bytes(4))
    with refused(r"models.tiny: transformers cannot load .*broken.gguf"):
        prepare(f"path:{tmp_path / 'broken.gguf'}", tmp_path / "tiny")


def write_adapter_gguf(path, tokenizer):
    writer = gguf.GGUFWriter(path, "qwen2")
    writer.add_type("adapter")
    writer.add_tensor("blk.0.attn_q.weight.lora_a", np.ones((2, 32), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_part_of_gguf(path, tokenizer):
    model = build_model("qwen2", len(tokenizer))
    write_gguf(path, model, tokenizer, lambda writer: writer.add_uint16("split.count", 2))


NO_MODELS = {
    "an adapter": (
        write_adapter_gguf,
        r"general\.type is adapter, no model; name the GGUF file of",
    ),
    "one of two parts": (write_part_of_gguf, r"is one of 2 parts; join them by llama-gguf-split"),
}


@pytest.mark.bad_input(of="folder")
@pytest.mark.parametrize(("write", "message"), NO_MODELS.values(), ids=NO_MODELS)
def test_a_gguf_that_is_no_whole_model_is_refused_before_it_is_loaded(
    tmp_path, monkeypatch, write, message
):
    """Of what it lacks transformers would take the sizes of a model of billions of parameters."""
    monkeypatch.setattr(models_module, "load_strictly", lambda *_, **__: pytest.fail("was loaded"))
    write(tmp_path / "tiny.gguf", build_tokenizer(300, chat=False, bos=False))
    with refused(rf"^models\.tiny: .*tiny\.gguf: {message}"):
        prepare(f"path:{tmp_path}/tiny.gguf", tmp_path / "tiny")


def test_unquantized_keeps_weights_and_generation_config(tmp_path):
    model = tiny_model()
    model.config.quantization_config = {"quant_method": "gguf"}
    model.generation_config.max_new_tokens = 7
    plain = _unquantized(model)
    assert not hasattr(plain.config, "quantization_config")
    assert hasattr(model.config, "quantization_config")
    assert plain.generation_config.max_new_tokens == 7
    assert plain.lm_head.weight is plain.model.embed_tokens.weight
    for key, value in model.state_dict().items():
        assert torch.equal(plain.state_dict()[key], value)


@pytest.mark.parametrize("architecture", ["for text", "for images too"])
def test_a_head_that_is_not_the_embedding_stays_whatever_the_config_says(tmp_path, architecture):
    model = build_model("gemma3")
    if architecture == "for images too":
        model = for_images_too(model)
    model.save_pretrained(tmp_path / "saved")
    build_tokenizer(320, chat=True, bos=True).save_pretrained(tmp_path / "saved")
    weights = load_file(tmp_path / "saved" / "model.safetensors")
    head = torch.randn(320, 32, generator=torch.Generator().manual_seed(0))
    save_file({**weights, "lm_head.weight": head}, tmp_path / "saved" / "model.safetensors")
    assert json.loads((tmp_path / "saved" / "config.json").read_text())["tie_word_embeddings"]

    prepare(f"path:{tmp_path / 'saved'}", tmp_path / "tiny")
    whole = type(model).from_pretrained(tmp_path / "saved").eval()
    ids = torch.arange(5, 20)[None]
    for folder in (tmp_path / "saved", tmp_path / "tiny"):
        read = load_base(folder)
        assert torch.equal(read.lm_head.weight, head)
        with torch.no_grad():
            torch.testing.assert_close(read(input_ids=ids).logits, whole(input_ids=ids).logits)


@pytest.mark.bad_input(of="folder")
def test_a_slow_tokenizer_is_refused(tmp_path, saved_model, monkeypatch):
    slow = type("Slow", (), {"is_fast": False})()
    monkeypatch.setattr(models_module.AutoTokenizer, "from_pretrained", lambda *_: slow)
    with refused(r"models.tiny: .*not a fast one.*add its tokenizer.json"):
        prepare(f"path:{saved_model}", tmp_path / "tiny")


def test_gguf_is_given_back_as_it_was():
    original = gguf.GGUFReader
    with pytest.raises(RuntimeError), models_module._parsing_gguf_once():  # noqa: PT012
        assert gguf.GGUFReader is not original
        raise RuntimeError
    assert gguf.GGUFReader is original
