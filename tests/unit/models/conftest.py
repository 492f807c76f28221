import pytest
from framed_prompts import INSTRUCTION
from tiny_models import build_digit_splitter

from sft_interactions.models.templates import make_frame


@pytest.fixture(params=["chat", "plain"])
def framed(request, chat_tokenizer, plain_tokenizer):
    """A tokenizer with the frame of its template."""
    tokenizer = chat_tokenizer if request.param == "chat" else plain_tokenizer
    return tokenizer, make_frame(tokenizer, request.param, INSTRUCTION)


@pytest.fixture(params=["byte-level", "sentencepiece"])
def splitter(request):
    return build_digit_splitter(request.param)
