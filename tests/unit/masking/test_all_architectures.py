"""benchmarks/architectures.py, which makes docs/architectures.md, on some families."""

import importlib.util
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM

from sft_interactions.masking.checkpoint import check_mask_embedding
from sft_interactions.masking.mask_embedding import make_mask_embedding

ROOT = Path(__file__).parents[3]
SPEC = importlib.util.spec_from_file_location(
    "architectures", ROOT / "benchmarks" / "architectures.py"
)
architectures = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(architectures)
EXPECTED = {
    "llama": ("prefix tree", ""),
    "gpt2": ("prefix tree", ""),
    "gemma2": ("prefix tree", ""),
    "deepseek_v3": ("prefix tree", ""),
    "bart": ("whole prompts", "it takes no position_ids"),
    "diffllama": ("whole prompts", "a layer asks for attention more than once"),
    "whisper": ("whole prompts", "it takes no position_ids"),
    "mamba": ("whole prompts", "layers of linear_attention"),
    "bert": ("refused", "BertLMHeadModel is not causal here"),
    "deepseek_v4": ("refused", "cannot evaluate a short text alone"),
}


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # of configurations that are of no use but here
@pytest.mark.parametrize("model_type", EXPECTED)
def test_a_family_is_right_or_refused(model_type):
    row = architectures.measure(model_type)
    evaluated, reason = EXPECTED[model_type]
    assert row.evaluated == evaluated, row
    assert reason in row.reason
    assert (row.difference is None) == (evaluated == "refused")
    assert "\n" not in row.reason


@pytest.mark.filterwarnings("default")
def test_a_mask_embedding_that_a_model_cannot_read_is_refused():
    model = AutoModelForCausalLM.from_config(architectures.shrunk("gemma4_text"))
    for name, token_id in (("token", 5), ("mean", None)):
        vector = make_mask_embedding(model, name, token_id)
        if name == "token":
            check_mask_embedding(model, vector, name)
            continue
        with pytest.raises(
            ValueError, match=r"mask_embedding: .* cannot read the embedding mean"
        ) as e:
            check_mask_embedding(model, vector, name)
        assert "\n" not in str(e.value)


def test_a_wrong_value_is_seen(monkeypatch):
    plainly = architectures._plainly
    monkeypatch.setattr(architectures, "_plainly", lambda *given: plainly(*given) + 0.001)
    row = architectures.measure("llama")
    assert row.evaluated == "wrong"
    assert row.difference == pytest.approx(0.001, abs=1e-4)


def test_the_page_is_of_this_command():
    page = (ROOT / "docs" / "architectures.md").read_text("utf-8")
    for model_type in architectures.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        assert f"| `{model_type}` |" in page, model_type
    assert " wrong | " not in page
    assert " failed | " not in page
