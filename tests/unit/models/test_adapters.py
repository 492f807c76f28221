"""Adapters as users bring them: every tensor is applied and merged rightly, or the adapter is refused."""

import copy
import json
import math
import shutil
import warnings
from functools import partial

import pytest
import torch
from bad_input import refused
from peft import (
    PEFT_TYPE_TO_CONFIG_MAPPING,
    LoraConfig,
    LoraModel,
    PeftModel,
    get_peft_model,
    get_peft_model_state_dict,
)
from safetensors.torch import load_file, save_file
from tiny_models import have_equal_weights
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from sft_interactions.models.adapters import adds_nothing
from sft_interactions.models.checkpoint_files import (
    MERGED_ADAPTERS,
    SCALES,
    base_named_otherwise,
)
from sft_interactions.models.loading import check_fit, load_checkpoint

CPU = torch.device("cpu")
IDS = torch.tensor([[1, 20, 30, 40, 77, 200, 7]])
SMALL = {
    "ADALORA": {"total_step": 10},
    "C3A": {"block_size": 16},
    "FOURIERFT": {"n_frequency": 50},
    "IA3": {"target_modules": ["k_proj", "down_proj"], "feedforward_modules": ["down_proj"]},
    "LN_TUNING": {"target_modules": ["input_layernorm", "norm"]},
    "MISS": {"r": 4},
    "OFT": {"oft_block_size": 4, "r": 0},
    "ROAD": {"group_size": 16},
    "TRAINABLE_TOKENS": {"target_modules": ["embed_tokens"], "token_indices": [20, 77]},
    "VBLORA": {"vector_length": 16, "num_vectors": 8},
    "WAVEFT": {"n_frequency": 50},
}


def make_adapter(model, folder, config, *, seed=1, save_embedding_layers=False):
    """Save an adapter with random weights, and return the model that carries it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT on tied weights
        adapted = get_peft_model(copy.deepcopy(model), config)
    generator = torch.Generator().manual_seed(seed)
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    adapted.eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT on lora_bias
        adapted.save_pretrained(folder, save_embedding_layers=save_embedding_layers)
    return adapted


def lora(**settings):
    return LoraConfig(
        **{"r": 2, "target_modules": ["q_proj"], "task_type": "CAUSAL_LM", **settings}
    )


@torch.no_grad()
def logits(model):
    return model(IDS).logits.double()


@torch.no_grad()
def expected_logits(model_folder, adapter):
    """By transformers and PEFT alone, unmerged, in float64."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        base = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float64)
        adapted = PeftModel.from_pretrained(base, adapter).double().eval()
    return logits(adapted)


def assert_right(model_folder, adapter):
    check_fit(model_folder, adapter)
    found = logits(load_checkpoint(model_folder, adapter, CPU))
    torch.testing.assert_close(found, expected_logits(model_folder, adapter), rtol=0, atol=1e-4)
    return found


@pytest.fixture
def llama(tiny_models):
    return tiny_models["llama"]


@pytest.fixture
def folder(model_folders):
    return model_folders["llama"]


def rewrite(adapter, change):
    """Change the tensors of an adapter file."""
    path = adapter / "adapter_model.safetensors"
    save_file(change(load_file(path)), path)


def reconfigure(adapter, **settings):
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Unsupported layer type")  # of PEFT, on LN_TUNING
@pytest.mark.parametrize("peft_type", MERGED_ADAPTERS)
def test_every_kind_that_is_merged(llama, folder, tmp_path, peft_type):
    kind = PEFT_TYPE_TO_CONFIG_MAPPING[peft_type]
    settings = {"target_modules": ["q_proj", "v_proj"], **SMALL.get(peft_type, {})}
    adapted = make_adapter(llama, tmp_path, kind(task_type="CAUSAL_LM", **settings))
    check_fit(folder, tmp_path)
    found = logits(load_checkpoint(folder, tmp_path, CPU))
    torch.testing.assert_close(found, logits(adapted), rtol=0, atol=1e-4)
    assert (found - logits(llama)).abs().max() > 0.01


RIGHT = {
    "rsLoRA": {"use_rslora": True, "lora_alpha": 3},
    "DoRA": {"use_dora": True, "target_modules": ["q_proj", "down_proj"]},
    "rank_pattern": {"rank_pattern": {"layers.1.self_attn.q_proj": 5}},
    "alpha_pattern": {"alpha_pattern": {"layers.0.self_attn.q_proj": 7}},
    "layers_to_transform": {"layers_to_transform": [1]},
    "all-linear": {"target_modules": "all-linear"},
    "regular expression": {"target_modules": r".*\.1\..*_proj"},
    "modules_to_save, norm": {"modules_to_save": ["norm"]},
    "modules_to_save, head": {"modules_to_save": ["lm_head"]},
    "modules_to_save, embedding": {"modules_to_save": ["embed_tokens"]},
    "modules_to_save, both ends": {"modules_to_save": ["embed_tokens", "lm_head"]},
    "head": {"target_modules": ["q_proj", "lm_head"]},
    "embedding": {"target_modules": ["q_proj", "embed_tokens"]},
    "both ends": {"target_modules": ["embed_tokens", "lm_head"]},
    "trained tokens": {"trainable_token_indices": [20, 77]},
    "orthogonal start": {"init_lora_weights": "orthogonal"},
    "gaussian start": {"init_lora_weights": "gaussian"},
}


# Llama's head has weights of its own here, Gemma 3's are those of the embedding.
@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["llama", "gemma3"])
@pytest.mark.parametrize("case", RIGHT)
def test_lora_in_every_form(tiny_models, model_folders, tmp_path, architecture, case):
    model = tiny_models[architecture]
    before = copy.deepcopy(model.state_dict())
    adapted = make_adapter(model, tmp_path, lora(**RIGHT[case]))
    found = assert_right(model_folders[architecture], tmp_path)
    torch.testing.assert_close(found, logits(adapted), rtol=0, atol=1e-4)
    assert (found - logits(model)).abs().max() > 0.01
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, before[name])


OTHER_FAMILIES = {
    "Conv1D": ("gpt2", {"target_modules": ["c_attn"]}),
    "Conv1D, said to be transposed": (
        "gpt2",
        {"target_modules": ["c_attn"], "fan_in_fan_out": True},
    ),
    "both ends of other names": ("gpt2", {"target_modules": ["lm_head", "wte"]}),
    "experts": ("mixtral", {"target_parameters": ["mlp.experts.gate_up_proj"]}),
    # Of these PEFT makes parameters with a rank and a scale of their own.
    "all linear layers, experts among them": ("mixtral", {"target_modules": "all-linear"}),
}


@pytest.mark.filterwarnings("ignore:fan_in_fan_out is set")  # PEFT corrects it
@pytest.mark.parametrize("case", OTHER_FAMILIES)
def test_lora_of_other_families(tmp_path, case):
    model_type, settings = OTHER_FAMILIES[case]
    torch.manual_seed(0)
    sizes = {"vocab_size": 320, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    sizes |= {"intermediate_size": 48, "num_key_value_heads": 2, "initializer_range": 0.2}
    sizes |= {"num_local_experts": 4} if model_type == "mixtral" else {"n_inner": 48}
    model = AutoModelForCausalLM.from_config(CONFIG_MAPPING[model_type](**sizes)).eval()
    model.save_pretrained(tmp_path / "model")
    adapted = make_adapter(model, tmp_path / "adapter", lora(**settings))
    check_fit(tmp_path / "model", tmp_path / "adapter")
    found = logits(load_checkpoint(tmp_path / "model", tmp_path / "adapter", CPU))
    torch.testing.assert_close(found, logits(adapted), rtol=0, atol=1e-4)
    assert (found - logits(model)).abs().max() > 0.01


def test_merged_weights_are_those_of_peft_to_the_bit(tiny_models, model_folders, tmp_path):
    make_adapter(tiny_models["gemma3"], tmp_path, lora(target_modules="all-linear"))
    base = AutoModelForCausalLM.from_pretrained(model_folders["gemma3"], dtype=torch.float32)
    by_peft = PeftModel.from_pretrained(base, tmp_path).merge_and_unload()
    assert have_equal_weights(load_checkpoint(model_folders["gemma3"], tmp_path, CPU), by_peft)


@pytest.mark.parametrize("settings", [{"bias": "all"}, {"bias": "lora_only"}, {"lora_bias": True}])
def test_trained_biases(tiny_models, model_folders, tmp_path, settings):
    adapted = make_adapter(tiny_models["qwen2"], tmp_path, lora(**settings))
    found = assert_right(model_folders["qwen2"], tmp_path)
    torch.testing.assert_close(found, logits(adapted), rtol=0, atol=1e-4)


@pytest.mark.bad_input(of="folder")
@pytest.mark.filterwarnings("ignore:`lora_bias=True` was passed")
def test_what_cannot_be_merged_is_refused(llama, folder, tmp_path):
    make_adapter(llama, tmp_path, lora(lora_bias=True))
    with refused(r"PEFT cannot merge this adapter .*as full weights"):
        load_checkpoint(folder, tmp_path, CPU)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_files(llama, folder, tmp_path, dtype):
    make_adapter(llama, tmp_path, lora())
    rewrite(tmp_path, lambda weights: {name: w.to(dtype) for name, w in weights.items()})
    assert_right(folder, tmp_path)


@pytest.mark.bad_input(of="folder")
def test_a_bin_file(llama, folder, tmp_path):
    make_adapter(llama, tmp_path, lora())
    path = tmp_path / "adapter_model.safetensors"
    torch.save(load_file(path), tmp_path / "adapter_model.bin")
    with refused(r"adapter_model\.safetensors and adapter_model\.bin are both"):
        check_fit(folder, tmp_path)
    path.unlink()
    assert_right(folder, tmp_path)
    whole = (tmp_path / "adapter_model.bin").read_bytes()
    (tmp_path / "adapter_model.bin").write_bytes(whole[: len(whole) // 2])
    with refused(r"adapter_model\.bin: is cut off"):
        check_fit(folder, tmp_path)


FOREIGN = {
    "torch.compile": lambda name: name.replace("base_model.model.", "base_model.model._orig_mod."),
    "torch.compile outside": lambda name: f"_orig_mod.{name}",
    "FSDP": lambda name: name.replace(".layers.", ".layers._fsdp_wrapped_module."),
    "DDP": lambda name: f"module.{name}",
    "images and text": lambda name: name.replace("model.model.", "model.model.language_model."),
    "images and text, before": lambda name: name.replace(
        "model.model.", "model.language_model.model."
    ),
    "name of the adapter": lambda name: name.replace(".weight", ".mine.weight"),
    "no start": lambda name: name.removeprefix("base_model.model."),
}


@pytest.mark.parametrize("case", FOREIGN)
def test_known_foreign_names_are_mapped(llama, folder, tmp_path, caplog, case):
    adapted = make_adapter(llama, tmp_path, lora())
    rewrite(tmp_path, lambda weights: {FOREIGN[case](name): w for name, w in weights.items()})
    check_fit(folder, tmp_path)
    found = logits(load_checkpoint(folder, tmp_path, CPU))
    torch.testing.assert_close(found, logits(adapted), rtol=0, atol=1e-4)
    assert "4 tensors have foreign names; " in caplog.text


@pytest.mark.parametrize(
    "start", ["model.language_model.", "language_model.model.", "_orig_mod.model."]
)
@pytest.mark.parametrize("setting", ["alpha_pattern", "rank_pattern"])
def test_settings_of_single_modules_are_mapped_with_their_names(
    llama, folder, tmp_path, start, setting
):
    """PEFT leaves out a setting whose module it does not find, and takes the one of all modules."""
    module = "model.layers.0.self_attn.q_proj"
    adapted = make_adapter(llama, tmp_path, lora(**{setting: {module: 7}}))
    rewrite(tmp_path, lambda ws: {n.replace("model.layers.", f"{start}layers."): ws[n] for n in ws})
    reconfigure(tmp_path, **{setting: {module.replace("model.", start): 7}})
    check_fit(folder, tmp_path)
    found = logits(load_checkpoint(folder, tmp_path, CPU))
    torch.testing.assert_close(found, logits(adapted), rtol=0, atol=1e-4)


def without(part):
    return lambda weights: {name: w for name, w in weights.items() if part not in name}


FIRST = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
WRONG_TENSORS = {
    "unknown names": (
        lambda weights: {f"policy.{name}": w for name, w in weights.items()},
        rf"4 missing, first {FIRST}; 4 unexpected, first policy\.",
    ),
    "half missing": (without("layers.1"), r"2 missing, first .*layers\.1\."),
    "A alone": (without("lora_B"), r"2 missing, first .*lora_B"),
    "a layer too many": (
        lambda weights: {**weights, FIRST.replace("s.0", "s.9"): torch.zeros(2, 32)},
        r"1 unexpected, first .*layers\.9\.",
    ),
    "another module": (
        lambda weights: {**weights, FIRST.replace("q_proj", "k_proj"): torch.zeros(2, 32)},
        r"1 unexpected, first .*k_proj",
    ),
    "another shape": (
        lambda weights: {**weights, FIRST: torch.zeros(2, 31)},
        r"lora_A.weight is 2 x 31, and 32 x 32 are the weights in .*, so the adapter is of another model",
    ),
    "another rank": (
        lambda weights: {**weights, FIRST: torch.zeros(3, 32)},
        r"1 mismatched, first .*\(3, 32\) instead of \(2, 32\)\); save the whole model",
    ),
    "transposed": (
        lambda weights: {name: w.T.contiguous() for name, w in weights.items()},
        r"lora_A.weight is 32 x 2, and 32 x 32 are the weights in",
    ),
    "empty": (
        lambda weights: {name: torch.zeros(0) for name in weights},
        r"is empty, as training with ZeRO-3",
    ),
    "none": (lambda _: {}, r"holds no tensor"),
    "two for one": (
        lambda weights: {**weights, f"module.{FIRST}": torch.zeros(2, 32)},
        rf"both stand for {FIRST}",
    ),
    "an embedding of another model": (
        lambda weights: {
            **weights,
            "base_model.model.model.embed_tokens.weight": torch.zeros(320, 32),
        },
        r"embed_tokens\.weight came with the adapter and is not that of the model",
    ),
    "a resized embedding": (
        lambda weights: {
            **weights,
            "base_model.model.model.embed_tokens.weight": torch.zeros(324, 32),
        },
        r"1 mismatched, first .*\(324, 32\) instead of \(320, 32\)\); where the training added tokens",
    ),
    "not finite": (
        lambda weights: {**weights, FIRST: torch.full((2, 32), torch.nan)},
        r"lora_A\.weight holds values that are not finite",
    ),
    "in eight bits": (
        lambda weights: {name: w.to(torch.float8_e4m3fn) for name, w in weights.items()},
        r"in F8_E4M3, a quantised format",
    ),
}


@pytest.mark.bad_input(of="folder")
@pytest.mark.parametrize("case", WRONG_TENSORS)
def test_wrong_tensors_are_refused(llama, folder, tmp_path, case):
    change, message = WRONG_TENSORS[case]
    make_adapter(llama, tmp_path, lora())
    rewrite(tmp_path, change)
    with refused(message) as caught:
        load_checkpoint(folder, tmp_path, CPU)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


WRONG_SETTINGS = {
    "PiSSA": ({"init_lora_weights": "pissa"}, "init_lora_weights pissa changes the model"),
    "fast PiSSA": ({"init_lora_weights": "pissa_niter_4"}, "pissa_niter_4 changes the model"),
    "OLoRA": ({"init_lora_weights": "olora"}, "olora changes the model"),
    "CorDA": ({"init_lora_weights": "corda"}, "corda changes the model"),
    "LoftQ": ({"init_lora_weights": "loftq"}, "loftq changes the model"),
    "LoRA-GA": ({"init_lora_weights": "lora_ga"}, "lora_ga changes the model"),
    "replicated layers": ({"layer_replication": [[0, 2], [1, 2]]}, "with layer_replication cannot"),
    "activated LoRA": ({"alora_invocation_tokens": [5, 6]}, "alora_invocation_tokens cannot"),
    "tied adapters": ({"ensure_weight_tying": True}, "ensure_weight_tying cannot"),
    "KaSA": ({"kasa_config": {"rank": 1}}, "kasa_config cannot"),
    "prompt tuning": ({"peft_type": "PROMPT_TUNING"}, "PROMPT_TUNING are not merged here"),
    "prefix tuning": ({"peft_type": "PREFIX_TUNING"}, "PREFIX_TUNING are not merged here"),
    "LLaMA-Adapter": ({"peft_type": "ADAPTION_PROMPT"}, "ADAPTION_PROMPT are not merged here"),
    "a type to come": ({"peft_type": "FUTURE"}, "FUTURE are not merged here"),
    "no type": ({"peft_type": None}, "None are not merged here"),
    "a classifier": ({"task_type": "SEQ_CLS"}, "task_type SEQ_CLS is not that of a causal LM"),
    "a setting to come": ({"use_magic": True}, "this version of PEFT does not know use_magic"),
    "other modules": ({"target_modules": ["query_key_value"]}, "cannot add this adapter"),
    "more modules": ({"target_modules": ["q_proj", "v_proj"]}, r"4 missing, first .*v_proj"),
    "another rank": ({"r": 4}, "4 mismatched"),
    "alpha as text": ({"lora_alpha": "16"}, "lora_alpha is '16', no finite number"),
    "no alpha": ({"lora_alpha": None}, "lora_alpha is None, no finite number"),
    "no number": ({"lora_alpha": math.nan}, "lora_alpha is nan, no finite number"),
    "alpha of another module": (
        {"alpha_pattern": {"q_proj": 3, "query": 5}},
        r"adapter_config\.json: alpha_pattern names query, and the model has no such module; correct",
    ),
    "DoRA forgotten": ({"use_dora": True}, r"2 missing, first .*lora_magnitude_vector"),
}


@pytest.mark.bad_input(of="folder")
@pytest.mark.parametrize("case", WRONG_SETTINGS)
def test_wrong_settings_are_refused(llama, folder, tmp_path, case):
    settings, message = WRONG_SETTINGS[case]
    make_adapter(llama, tmp_path, lora())
    reconfigure(tmp_path, **settings)
    for check in (check_fit, lambda *folders: load_checkpoint(*folders, CPU)):
        with refused(message) as caught:
            check(folder, tmp_path)
        assert str(tmp_path) in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.bad_input(of="folder")
@pytest.mark.parametrize(
    ("settings", "fix"),
    [
        (
            {"fine_tune_type": "lora", "lora_parameters": {"rank": 8}},
            "full weights of it by mlx_lm",
        ),
        ({"r": 8}, "name an adapter of PEFT, or save the merged model as full weights"),
    ],
    ids=["MLX", "unknown"],
)
def test_an_adapter_that_is_not_of_peft_is_told(folder, tmp_path, settings, fix):
    (tmp_path / "adapter_config.json").write_text(json.dumps(settings))
    (tmp_path / "adapters.safetensors").touch()
    with refused(rf"adapter_config\.json: is not of PEFT, .*; .*{fix}"):
        check_fit(folder, tmp_path)


@pytest.mark.bad_input(of="folder")
def test_a_start_that_changes_the_base_is_noticed_whatever_its_name(
    llama, folder, tmp_path, monkeypatch
):
    make_adapter(llama, tmp_path, lora())
    reconfigure(tmp_path, init_lora_weights="pissa")
    monkeypatch.setattr(
        "sft_interactions.models.checkpoint_files.HARMLESS_INITIALISATIONS", ("pissa",)
    )
    with refused("changes the model's own weights"):
        load_checkpoint(folder, tmp_path, CPU)


@pytest.mark.bad_input(of="folder")
def test_a_merge_that_changes_the_output_is_refused(llama, folder, tmp_path, monkeypatch):
    make_adapter(llama, tmp_path, lora())
    monkeypatch.setattr(LoraModel, "merge_and_unload", lambda adapted: copy.deepcopy(llama))
    with refused(r"merging this adapter changes the logits by up to \d"):
        load_checkpoint(folder, tmp_path, CPU)


@pytest.mark.bad_input(of="folder")
def test_a_scale_is_never_made_up(llama, folder, tmp_path):
    """PEFT takes 8 for a lora_alpha that is not there."""
    make_adapter(llama, tmp_path, lora(lora_alpha=32))
    path = tmp_path / "adapter_config.json"
    settings = json.loads(path.read_text())
    path.write_text(json.dumps({k: v for k, v in settings.items() if k != "lora_alpha"}))
    with refused(r"lora_alpha is missing, .* that it was trained with"):
        check_fit(folder, tmp_path)
    path.write_text(json.dumps(settings)[:-1] + ', "lora_alpha": 64}')
    with refused("the key 'lora_alpha' is there more than once"):
        check_fit(folder, tmp_path)


@pytest.mark.parametrize("peft_type", SCALES)
def test_scales_are_those_of_peft(peft_type):
    default = getattr(PEFT_TYPE_TO_CONFIG_MAPPING[peft_type], SCALES[peft_type])
    assert isinstance(default, int | float)


@pytest.mark.bad_input(of="folder")
def test_weights_that_merging_makes_infinite_are_refused(llama, folder, tmp_path):
    """Attention gives finite logits out of them, the same merged and unmerged."""
    make_adapter(llama, tmp_path, lora())
    reconfigure(tmp_path, lora_alpha=1e39)
    with refused(r"q_proj\.weight holds values that are not finite"):
        load_checkpoint(folder, tmp_path, CPU)


@pytest.mark.bad_input(of="folder")
def test_a_damaged_file_is_refused_in_one_line(llama, folder, tmp_path):
    """Two tensors in one place, which the sizes in the header do not tell."""
    make_adapter(llama, tmp_path, lora())
    path = tmp_path / "adapter_model.safetensors"
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    header[FIRST]["data_offsets"] = header[FIRST.replace("s.0", "s.1")]["data_offsets"]
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + length :])
    with refused("PEFT cannot read the adapter's weights") as caught:
        check_fit(folder, tmp_path)
    assert "\n" not in str(caught.value)


def test_the_embeddings_of_the_model_may_come_along(tiny_models, model_folders, tmp_path):
    for name in ("llama", "gemma3"):
        adapter = tmp_path / name
        make_adapter(tiny_models[name], adapter, lora(), save_embedding_layers=True)
        assert any(
            "embed_tokens" in key for key in load_file(adapter / "adapter_model.safetensors")
        )
        assert_right(model_folders[name], adapter)


def test_an_adapter_that_adds_nothing(llama, folder, tmp_path):
    make_adapter(llama, tmp_path, lora())
    assert not adds_nothing(tmp_path)
    rewrite(
        tmp_path,
        lambda weights: {name: w.zero_() if "lora_B" in name else w for name, w in weights.items()},
    )
    assert adds_nothing(tmp_path)
    torch.testing.assert_close(
        logits(load_checkpoint(folder, tmp_path, CPU)), logits(llama), rtol=0, atol=0
    )


def test_a_base_of_another_name(llama, tmp_path):
    make_adapter(llama, tmp_path, lora())
    reconfigure(tmp_path, base_model_name_or_path="org/Llama-7b")
    assert base_named_otherwise(tmp_path, ["other/llama-7B", "x"]) is None
    assert base_named_otherwise(tmp_path, ["org/Llama-13b"]) == "org/Llama-7b"
    reconfigure(tmp_path, base_model_name_or_path=None)
    assert base_named_otherwise(tmp_path, []) is None


def test_the_last_adapter_beside_the_checkpoints_of_its_trainer(llama, folder, tmp_path):
    """As transformers' Trainer and TRL leave an output folder."""
    make_adapter(llama, tmp_path / "output", lora())
    shutil.copytree(tmp_path / "output", tmp_path / "before")
    shutil.copytree(tmp_path / "before", tmp_path / "output" / "checkpoint-100")
    spoil(tmp_path / "output" / "checkpoint-100" / "adapter_model.safetensors")
    check_fit(folder, tmp_path / "output")
    alone, beside = (
        load_checkpoint(folder, tmp_path / name, torch.device("cpu")).state_dict()
        for name in ("before", "output")
    )
    assert all(torch.equal(alone[name], beside[name]) for name in alone)


def spoil(weights):
    save_file({name: one + 1 for name, one in load_file(weights).items()}, weights)


@pytest.mark.bad_input(of="folder")
def test_two_adapters_in_one_folder(llama, folder, tmp_path):
    make_adapter(llama, tmp_path, lora())
    shutil.copytree(tmp_path, tmp_path / "second")
    with refused("holds an adapter and another one in second/"):
        check_fit(folder, tmp_path)
    (tmp_path / "adapter_config.json").unlink()
    (tmp_path / "adapter_model.safetensors").unlink()
    with refused(r"name .*second$"):
        check_fit(folder, tmp_path)


def test_names_in_files_are_those_of_peft(llama):
    adapted = get_peft_model(copy.deepcopy(llama), lora())
    assert FIRST in get_peft_model_state_dict(adapted)


ADDED = 3  # tokens that a training has added to a vocabulary of 320


def make_resized(model, folder, *, save_embeddings=True, **settings):
    """Save an adapter to a model whose embeddings the training has enlarged, and return that model."""
    resized = copy.deepcopy(model)
    resized.resize_token_embeddings(320 + ADDED, mean_resizing=False)
    torch.manual_seed(1)
    with torch.no_grad():
        resized.get_input_embeddings().weight[320:].normal_()
        resized.get_output_embeddings().weight[320:].normal_()
    return make_adapter(resized, folder, lora(**settings), save_embedding_layers=save_embeddings)


@pytest.mark.parametrize(
    ("architecture", "kept"),
    [
        ("llama", "embeddings beside"),
        ("gemma3", "embeddings beside"),
        ("llama", "embeddings trained"),
        ("gemma3", "embeddings trained"),
        ("llama", "new tokens trained"),
    ],
)
def test_tokens_that_the_training_added_are_added(
    tiny_models, model_folders, tmp_path, architecture, kept
):
    """gemma3 has one matrix for both ends."""
    settings = {}
    if kept == "new tokens trained":
        settings["trainable_token_indices"] = [20, 320, 320 + ADDED - 1]
    if kept == "embeddings trained":
        both = ["embed_tokens", "lm_head"]
        settings["modules_to_save"] = both[:1] if architecture == "gemma3" else both
    adapted = make_resized(tiny_models[architecture], tmp_path, **settings)
    shutil.copy(model_folders[architecture] / "tokenizer.json", tmp_path)
    base = model_folders[architecture]
    check_fit(base, tmp_path)
    loaded = load_checkpoint(base, tmp_path, CPU)
    ids = torch.tensor([[1, 20, 320 + ADDED - 1, 40, 7]])
    with torch.no_grad():
        found, expected = loaded(ids).logits, adapted(ids).logits
    assert found.shape[-1] == 320 + ADDED
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


@pytest.mark.bad_input(of="folder")
@pytest.mark.parametrize("architecture", ["llama", "gemma3"])
def test_a_token_that_was_added_and_not_saved_is_refused(
    tiny_models, model_folders, tmp_path, architecture
):
    tokens = {"trainable_token_indices": [20, 321]}
    make_resized(tiny_models[architecture], tmp_path, save_embeddings=False, **tokens)
    base = model_folders[architecture]
    shutil.copy(base / "tokenizer.json", tmp_path)
    for read in (partial(check_fit, base), partial(load_checkpoint, base, device=CPU)):
        with refused(
            "has trained the embedding of token 321, and neither the model, which has 320"
        ):
            read(tmp_path)


def test_without_a_tokenizer_nothing_tells_which_tokens_were_added(llama, folder, tmp_path):
    make_resized(llama, tmp_path)
    with pytest.raises(ValueError, match=r"mismatched, .* \(323, 32\) instead of \(320, 32\)"):
        check_fit(folder, tmp_path)


def test_added_tokens_do_not_hide_another_base(llama, folder, tmp_path):
    make_resized(llama, tmp_path)
    shutil.copy(folder / "tokenizer.json", tmp_path)
    name = "base_model.model.model.embed_tokens.weight"
    rewrite(tmp_path, lambda weights: {**weights, name: weights[name] + 1})
    with pytest.raises(ValueError, match="came with the adapter and is not that of the model"):
        load_checkpoint(folder, tmp_path, CPU)


@pytest.mark.parametrize("part", ["vision_tower.encoder", "model.multi_modal_projector"])
def test_parts_that_no_text_goes_through_are_left_out(llama, folder, tmp_path, caplog, part):
    """As LoRA on all layers of a model for images and text leaves them."""
    adapted = make_adapter(llama, tmp_path, lora())
    images_too = FOREIGN["images and text"]

    def with_images(weights):
        extra = [f"base_model.model.{part}.0.q_proj.lora_{x}.weight" for x in "AB"]
        named = {images_too(name): tensor for name, tensor in weights.items()}
        return {**named, **{name: torch.ones(2, 2) for name in extra}}

    rewrite(tmp_path, with_images)
    check_fit(folder, tmp_path)
    found = logits(load_checkpoint(folder, tmp_path, CPU))
    torch.testing.assert_close(found, logits(adapted), rtol=0, atol=1e-4)
    assert "2 tensors of parts that no text goes through are left out" in caplog.text
    # Of an adapter that is not of such a model they are surplus.
    make_adapter(llama, tmp_path, lora())
    rewrite(tmp_path, lambda weights: {**weights, **with_images({})})
    with pytest.raises(ValueError, match="2 unexpected"):
        check_fit(folder, tmp_path)
