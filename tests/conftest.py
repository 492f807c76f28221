import gc
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import bad_input
import pytest
import torch
from tiny_models import ARCHITECTURES, build_model, build_tokenizer

torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))


def pytest_collection_finish():
    # Every training ends with gc.collect, which otherwise goes through all that libraries and tests hold.
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def plain_tokenizer():
    """Adds a beginning-of-sequence token by itself, has no chat template; short merges."""
    return build_tokenizer(300, chat=False, bos=True)


@pytest.fixture(scope="session")
def chat_tokenizer():
    """Adds a beginning-of-sequence token by itself and by its chat template; longer merges."""
    return build_tokenizer(320, chat=True, bos=True)


@pytest.fixture(scope="session")
def tiny_models():
    return {architecture: build_model(architecture) for architecture in ARCHITECTURES}


@pytest.fixture(params=ARCHITECTURES)
def model(request, tiny_models):
    return tiny_models[request.param]


@pytest.fixture(scope="session")
def model_folders(tiny_models, plain_tokenizer, chat_tokenizer, tmp_path_factory):
    """Saved models with tokenizers: Gemma-3's without a chat template, the others with one."""
    root = tmp_path_factory.mktemp("models")
    for name, model in tiny_models.items():
        model.save_pretrained(root / name)
        tokenizer = plain_tokenizer if name == "gemma3" else chat_tokenizer
        tokenizer.save_pretrained(root / name)
    return {name: root / name for name in tiny_models}


@pytest.fixture(autouse=True)
def _a_bad_input_is_answered_in_one_line(request):
    """A test that says that it refuses a bad input has to look at the message."""
    marker = request.node.get_closest_marker("bad_input")
    n_before = len(bad_input.looked_at)
    yield
    if marker is not None:
        assert marker.kwargs["of"] in bad_input.KINDS
        n_looked_at = len(bad_input.looked_at) - n_before
        assert n_looked_at, "no message was looked at by tests/bad_input.py"
