"""Tiny random-weight LLMs and tokenizers, for tests that need one."""

import torch
from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import (
    CONFIG_MAPPING,
    AutoModelForCausalLM,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

MIXED = {
    "num_hidden_layers": 3,
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    "sliding_window": 6,
}
# Windows are shorter than the prompts of the tests. All have grouped-query attention.
ARCHITECTURES = {
    "llama": ("llama", {}),
    "qwen2": ("qwen2", {}),
    "gemma3": ("gemma3_text", {"head_dim": 8, **MIXED}),
    "gemma2": ("gemma2", {"head_dim": 8, "attn_logit_softcapping": 2.0, **MIXED}),
    "qwen3": ("qwen3", {"head_dim": 8, "use_sliding_window": True, **MIXED}),
    "mistral": ("mistral", {"head_dim": 8, "sliding_window": 10}),  # of both layers
}
SPECIAL = ("<unk>", "<s>", "</s>", "<pad>", "<|im_start|>", "<|im_end|>")
SENTENCES = (
    "The quick brown fox jumps over the lazy dog.",
    "She said the film was wonderful, but the ending was sad!",
    "Positive, negative or neutral? Answer:",
    "I don't think that anybody likes cold rain in the morning.",
)
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}"
    "<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def build_tokenizer(vocab_size: int, *, chat: bool, bos: bool) -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.BPE(unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(SENTENCES, trainer)
    if bos:
        backend.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", backend.token_to_id("<s>"))]
        )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
    )
    tokenizer.chat_template = CHAT_TEMPLATE if chat else None
    return tokenizer


def build_digit_splitter(form: str) -> PreTrainedTokenizerFast:
    """A tokenizer that gives digits, and the blank before them, tokens of their own, as SmolLM2's does."""
    names = [*SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256))]
    if form == "byte-level":
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        vocabulary = {token: i for i, token in enumerate([*names, *alphabet, "Ġc", "Ġco"])}
        merges = [("Ġ", "c"), ("Ġc", "o")]
        backend = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>"))
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Digits(individual_digits=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False),
            ]
        )
        backend.decoder = decoders.ByteLevel()
    else:
        letters = sorted({*"▁\n:[]<|>_", *"Answer0123456789cookingfilmsdQu"})
        vocabulary = {token: i for i, token in enumerate([*names, *letters, "▁c", "▁co"])}
        merges = [("▁", "c"), ("▁c", "o")]
        backend = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True))
        backend.normalizer = normalizers.Replace(" ", "▁")
        backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse()])
    backend.add_special_tokens([AddedToken(name, special=True) for name in SPECIAL])
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", eos_token="</s>")


def build_model(architecture: str, vocab_size: int = 320) -> PreTrainedModel:
    # Weights large enough that every masking changes the output well above rounding.
    shape = {
        "vocab_size": vocab_size,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
        "initializer_range": 0.2,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 3,
    }
    torch.manual_seed(0)
    model_type, own = ARCHITECTURES[architecture]
    config = CONFIG_MAPPING[model_type](**{"num_hidden_layers": 2, **shape, **own})
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()


def for_images_too(model: PreTrainedModel) -> PreTrainedModel:
    """A tiny Gemma-3 for images and text around one for text."""
    vision = {
        "hidden_size": 8,
        "intermediate_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 28,
        "patch_size": 14,
    }
    both = Gemma3ForConditionalGeneration(
        Gemma3Config(
            text_config=model.config.to_dict(), vision_config=vision, mm_tokens_per_image=4
        )
    )
    both.model.language_model.load_state_dict(model.model.state_dict())
    both.tie_weights()
    return both.eval()


def have_equal_weights(one: PreTrainedModel, other: PreTrainedModel) -> bool:
    """Whether two models are the same, which their outputs tell only up to rounding."""
    weights = [model.state_dict() for model in (one, other)]
    return weights[0].keys() == weights[1].keys() and all(
        torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items()
    )
