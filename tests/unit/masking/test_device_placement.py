"""Every tensor is created on the model's device, shown without a GPU."""

import pytest
import torch
from pretend_gpu import on_pretended_gpu, pretend_gpu
from tiny_models import ARCHITECTURES, build_model

from sft_interactions.masking.live import plain_log_odds
from sft_interactions.masking.log_odds import MaskedPrompt, masked_log_odds
from sft_interactions.masking.mask_embedding import learn_mask_embedding, make_mask_embedding
from sft_interactions.masking.memory import BatchSize
from sft_interactions.models.examples import ResponseCollator
from sft_interactions.models.finetuning import add_adapters
from sft_interactions.models.losses import response_losses

PROMPT = MaskedPrompt([1, 20, 30, 40, 50, 60, 70, 80, 90], [-1, 0, 0, -1, 1, 2, -1, -1, -1], [7, 8])
EXAMPLES = [
    {"prompt_ids": [1, 20, 30], "response_ids": [7, 8]},
    {"prompt_ids": [1], "response_ids": [9]},
]
LORA = {"lora_rank": 2, "lora_alpha": 4, "lora_dropout": 0.1, "lora_target_modules": "all-linear"}


@pytest.fixture
def gpu():
    with pretend_gpu() as device:
        yield device


def build(architecture="llama"):
    return on_pretended_gpu(lambda: build_model(architecture))


def placed_on(tensor):
    return tensor.device.type


def test_the_pretended_gpu_refuses_what_a_gpu_refuses(gpu):
    there, here = torch.zeros(3, 4, device=gpu), torch.zeros(3, 4)
    for wrong in (
        lambda: there + here,
        lambda: there @ here.T,
        lambda: there.gather(-1, torch.zeros(3, 1, dtype=torch.int64)),
        lambda: torch.where(here > 0, there, 0.0),
        lambda: torch.cat([there, here]),
        lambda: torch.nn.functional.embedding(torch.zeros(2, dtype=torch.int64), there),
        lambda: there.numpy(),
    ):
        with pytest.raises((RuntimeError, TypeError), match=r"device|are on|brought"):
            wrong()
    assert there.cpu().numpy().shape == (3, 4)
    assert placed_on(torch.tensor([1, 2], device=gpu)) == gpu.type


@pytest.mark.slow
@pytest.mark.parametrize("method", ["prefix_tree", "full_length"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_log_odds_of_all_maskings(gpu, architecture, method):
    model = build(architecture)
    mask_embedding = make_mask_embedding(model, "token", 5)
    values = masked_log_odds(
        model, PROMPT, mask_embedding, batch=BatchSize(64, 2**30), method=method
    )
    assert values.shape == (8,)


def test_log_odds_of_a_prompt_by_its_tokens(gpu):
    assert plain_log_odds(build(), PROMPT) == 1.0  # as the pretended device reads a number


@pytest.mark.parametrize(
    ("name", "given"),
    [("token", {"token_id": 5}), ("learned", {"vector": [0.0] * 32}), ("mean", {}), ("zero", {})],
)
def test_mask_embeddings(gpu, name, given):
    assert placed_on(make_mask_embedding(build(), name, **given)) == gpu.type


def test_learning_a_mask_embedding(gpu):
    model = build()
    learned = learn_mask_embedding(
        model,
        [PROMPT],
        make_mask_embedding(model, "mean"),
        steps=2,
        learning_rate=0.1,
        batch_size=2,
        seed=0,
    )
    assert placed_on(learned) == gpu.type


def test_losses_of_responses(gpu):
    losses, n_tokens = response_losses(build(), EXAMPLES, pad_id=3)
    assert losses.shape == (2,)
    assert n_tokens.tolist() == [2, 1]


def test_a_training_step_of_adapters(gpu):
    model = on_pretended_gpu(lambda: add_adapters(build_model("llama"), LORA, name="tiny"))
    batch = ResponseCollator(3)(EXAMPLES)
    # The trainer moves a batch as a whole.
    moved = {key: x.to(gpu) if isinstance(x, torch.Tensor) else x for key, x in batch.items()}
    torch.autograd.backward(model(**moved).loss)
    gradients = [p.grad for p in model.parameters() if p.requires_grad]
    assert gradients
    assert all(placed_on(gradient) == gpu.type for gradient in gradients)
