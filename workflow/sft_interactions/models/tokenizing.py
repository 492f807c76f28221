"""Tokenizers, and tokens of texts in which names of special tokens are text, or tokens, by who wrote them.

Imports transformers only.
"""

import json
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from sft_interactions.files import check_checksums
from sft_interactions.models.checkpoint_files import (
    refuse_broken_links,
    refuse_sentencepiece_alone,
)

_SEPARATOR = "\ue000SEPARATOR\ue001"  # a token that no text has, which begins a stretch of text
_BYTE = re.compile(r"<0x[0-9A-Fa-f]{2}>")

Offsets = list[tuple[int, int]]
Parts = Sequence[tuple[str, bool]]
"""Pieces of a text, each with whether it is a user's."""


def load_tokenizer(folder: str | Path, *, tells: bool = False) -> PreTrainedTokenizerBase:
    """The tokenizer of a folder, which cuts texts as its ``tokenizer.json`` says.

    Of that file transformers takes for some classes and model types the vocabulary alone, and cuts texts by
    rules of its own: digits that the file sets apart are joined, for one.

    Args:
        tells: whether the log says so, which is once enough for a study.

    Raises:
        ValueError: a file is a link that leads nowhere, or, weights left out, not what was written; or the
            tokenizer is there in the form of sentencepiece alone.
        OSError, Exception: whatever transformers raises where it cannot load it.
    """
    refuse_broken_links(folder)
    refuse_sentencepiece_alone(folder)
    check_checksums(folder, leave_out=(".safetensors", ".bin"))
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder)
    file = Path(folder) / "tokenizer.json"
    if not file.is_file() or not tokenizer.is_fast:
        return tokenizer
    written = json.loads(file.read_text("utf-8"))
    if _rules(json.loads(tokenizer.backend_tokenizer.to_str())) == _rules(written):
        return tokenizer
    logging.getLogger(__name__).log(
        logging.INFO if tells else logging.DEBUG,
        "%s: transformers would cut texts by the rules of %s; they are cut as tokenizer.json says, and "
        "nothing needs to be done",
        *(folder, type(tokenizer).__name__),
    )
    plain: PreTrainedTokenizerBase = PreTrainedTokenizerFast.from_pretrained(folder)
    # The class may know names of special tokens that the files do not give.
    vocabulary, names = plain.get_vocab(), tokenizer.special_tokens_map
    known = {key: name for key, name in names.items() if name in vocabulary}
    plain.add_special_tokens({**known, **plain.special_tokens_map})
    return plain


def _rules(description: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """How a tokenizer cuts texts, by the content of its file: in one form, and without the vocabulary."""
    parts = {key: description.get(key) for key in ("normalizer", "pre_tokenizer")}
    small = {"type": "WordLevel", "vocab": {"": 0}, "unk_token": ""}
    form = Tokenizer.from_str(json.dumps({**parts, "added_tokens": [], "model": small})).to_str()
    model = description["model"]
    options = {key: model[key] for key in model if key not in ("vocab", "merges") and model[key]}
    return form, options


def tokenize(tokenizer: PreTrainedTokenizerBase, parts: Parts) -> tuple[list[int], Offsets]:
    """Tokens of a text without those that the tokenizer would add.

    Args:
        parts: pieces of the text, each with whether it is a user's. In a user's piece the name of a
            special token, such as ``<|im_end|>``, is text; elsewhere it is the token.

    Returns:
        Ids, and (start, end) of each token in characters of the whole text.

    Raises:
        ValueError: the tokenizer cannot take the name of a special token for text.
    """
    whole = _tokenize_whole(tokenizer, parts)
    taken = _taken_for_special(tokenizer, parts, *whole)
    if not taken:
        return whole
    apart = _tokenize_apart(tokenizer, parts, *whole)
    names = {text_of(parts)[a:b] for a, b in taken}
    # On a text without such names it must give what the tokenizer gives, or it cannot be trusted.
    harmless = [
        (_without(piece, names) if is_users else piece, is_users) for piece, is_users in parts
    ]
    expected = _tokenize_whole(tokenizer, harmless)
    if (
        _taken_for_special(tokenizer, parts, *apart)
        or _taken_for_special(tokenizer, harmless, *expected)
        or _tokenize_apart(tokenizer, harmless, *expected) != expected
    ):
        raise ValueError(
            f"the tokenizer takes the text {min(names)!r} for a special token; drop such samples by "
            "filter.exclude_pattern"
        )
    return apart


def text_of(parts: Parts) -> str:
    """The whole text."""
    return "".join(piece for piece, _ in parts)


def _without(text: str, names: set[str]) -> str:
    for name in names:
        text = text.replace(name, "x")
    return text


def _tokenize_whole(tokenizer: PreTrainedTokenizerBase, parts: Parts) -> tuple[list[int], Offsets]:
    encoded = tokenizer(text_of(parts), add_special_tokens=False, return_offsets_mapping=True)
    return list(encoded["input_ids"]), list(encoded["offset_mapping"])


def _tokenize_apart(
    tokenizer: PreTrainedTokenizerBase,
    parts: Parts,
    ids: Sequence[int],
    offsets: Offsets,
) -> tuple[list[int], Offsets]:
    """Tokens of a text, what stands between special tokens of the template by itself, as text.

    That is what tokenizers do by themselves with the names of all special tokens.

    Args:
        ids: tokens of the whole text, in which the template's special tokens are found.
        offsets: their places.
    """
    text = text_of(parts)
    backend = _without_special_tokens(tokenizer, frozenset(_special_tokens(tokenizer, parts)))
    apart_ids: list[int] = []
    apart_offsets: Offsets = []
    here = 0
    ends = [
        (token, a, b)
        for token, a, b, is_users in _find_special(tokenizer, parts, ids, offsets)
        if not is_users
    ]
    for token, a, b in [*ends, (-1, len(text), len(text))]:
        # Inside of a text some tokenizers put no blank before a stretch, at its beginning they do.
        separator = _SEPARATOR if here else ""
        encoded = backend.encode(separator + text[here:a], add_special_tokens=False)
        shift = here - len(separator)
        skipped = len(separator) > 0
        apart_ids += encoded.ids[skipped:]
        apart_offsets += [(start + shift, end + shift) for start, end in encoded.offsets[skipped:]]
        if token != -1:
            apart_ids.append(token)
            apart_offsets.append((a, b))
        here = b
    return apart_ids, apart_offsets


def _spans(parts: Parts) -> Iterator[tuple[tuple[int, int], bool]]:
    start = 0
    for piece, is_users in parts:
        yield (start, start + len(piece)), is_users
        start += len(piece)


def _taken_for_special(
    tokenizer: PreTrainedTokenizerBase,
    parts: Parts,
    ids: Sequence[int],
    offsets: Offsets,
) -> Offsets:
    """Places of special tokens that are made of a user's text."""
    found = _find_special(tokenizer, parts, ids, offsets)
    return [(a, b) for _, a, b, is_users in found if is_users]


def _find_special(
    tokenizer: PreTrainedTokenizerBase,
    parts: Parts,
    ids: Sequence[int],
    offsets: Offsets,
) -> Iterator[tuple[int, int, int, bool]]:
    """Special tokens of a text: id, start, end, and whether some of it is a user's."""
    special = _special_tokens(tokenizer, parts)
    text = text_of(parts)
    users = [span for span, is_users in _spans(parts) if is_users]
    for token, (a, b) in zip(ids, offsets, strict=True):
        if token not in special or a == b:
            continue
        name = special[token]
        if text[a:b].strip() == name or not _stands_for_any(tokenizer, name):
            yield token, a, b, any(a < end and b > start for start, end in users)


def _stands_for_any(tokenizer: PreTrainedTokenizerBase, name: str) -> bool:
    """Whether a special token stands for characters that have no token: the unknown token, a byte."""
    return name == tokenizer.unk_token or _BYTE.fullmatch(name) is not None


def _special_tokens(tokenizer: PreTrainedTokenizerBase, parts: Parts) -> Mapping[int, str]:
    """Id to name of all special tokens, and of others that were added and the template writes."""
    return _special_beside(tokenizer, "\n".join(piece for piece, is_users in parts if not is_users))


@lru_cache(maxsize=32)
def _special_beside(tokenizer: PreTrainedTokenizerBase, template: str) -> Mapping[int, str]:
    return {
        token: added.content
        for token, added in tokenizer.added_tokens_decoder.items()
        if added.special or (added.content.strip() and added.content in template)
    }


@lru_cache(maxsize=8)
def _without_special_tokens(
    tokenizer: PreTrainedTokenizerBase, special: frozenset[int]
) -> Tokenizer:
    """The same tokenizer, which takes the names of some added tokens for text."""
    description = json.loads(tokenizer.backend_tokenizer.to_str())
    for added in description["added_tokens"]:
        added["special"] = added["special"] or added["id"] in special
    backend = Tokenizer.from_str(json.dumps(description))
    backend.encode_special_tokens = True
    backend.add_tokens([AddedToken(_SEPARATOR, normalized=False)])
    backend.no_truncation()
    backend.no_padding()
    return backend
