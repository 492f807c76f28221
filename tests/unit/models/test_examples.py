import copy

import pytest
from bad_input import refused

from sft_interactions.models.examples import check_vocabularies, make_example, padding_token


def test_a_token_without_an_embedding_is_told_with_its_sample():
    examples = [make_example([1, 2], [3], 9), make_example([1, 2], [3, 320], 9)]
    check_vocabularies(examples[:1], ["a"], 320, "base")
    with refused("base: sample b has the token id 320, the model knows 320; put the tokenizer"):
        check_vocabularies(examples, ["a", "b"], 320, "base")


def test_a_padding_token_without_an_embedding_gives_way_to_the_end(chat_tokenizer, model_folders):
    folder = model_folders["llama"]
    assert padding_token(chat_tokenizer, folder) == chat_tokenizer.convert_tokens_to_ids("<pad>")
    tokenizer = copy.deepcopy(chat_tokenizer)
    tokenizer.add_special_tokens({"pad_token": "<new>"})
    assert tokenizer.pad_token_id == 320
    assert padding_token(tokenizer, folder) == tokenizer.eos_token_id
    tokenizer.eos_token = None
    with pytest.raises(ValueError, match="neither a padding token with an embedding nor an end"):
        padding_token(tokenizer, folder)
