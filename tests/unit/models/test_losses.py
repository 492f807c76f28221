import pytest
import torch

from sft_interactions.models.losses import mean_response_loss, response_losses

EXAMPLES = [
    {"prompt_ids": [1, 40, 41, 42], "response_ids": [50, 51]},
    {"prompt_ids": [1, 43], "response_ids": [52]},
    {"prompt_ids": [1, 44, 45, 46, 47, 48], "response_ids": [53, 54, 55]},
]


def alone(model, example):
    """The loss of one response, from one unpadded forward pass in float64."""
    ids = torch.tensor([example["prompt_ids"] + example["response_ids"]])
    with torch.no_grad():
        logits = model(ids).logits.double()[0]
    first = len(example["prompt_ids"])
    rows = logits[first - 1 : -1].log_softmax(-1)
    return -float(sum(row[token] for row, token in zip(rows, example["response_ids"], strict=True)))


@pytest.mark.parametrize("batch_size", [1, 2, 8])
def test_each_loss_is_that_of_its_response_alone(model, batch_size):
    losses, n_tokens = response_losses(model, EXAMPLES, pad_id=3, batch_size=batch_size)
    assert losses.tolist() == pytest.approx([alone(model, e) for e in EXAMPLES], abs=1e-3)
    assert n_tokens.tolist() == [2, 1, 3]


def test_progress_counts_examples(model):
    told = []
    response_losses(model, EXAMPLES, pad_id=3, batch_size=2, progress=told.append)
    assert told == [2, 1]


@pytest.mark.parametrize("training", [True, False])
def test_the_mean_is_per_token_and_leaves_the_model_as_it_was(model, training):
    model.train(training)
    mean = mean_response_loss(model, EXAMPLES, pad_id=3, batch_size=2)
    assert mean == pytest.approx(sum(alone(model, e) for e in EXAMPLES) / 6, abs=1e-3)
    assert model.training == training
    model.train(False)
