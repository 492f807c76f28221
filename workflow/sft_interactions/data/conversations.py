"""Conversations as data sets for chat models hold them: the last answer, the question, what stood before.

Imports the standard library only.
"""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from sft_interactions.data.looks import BLANKS

NO_TURNS = "[]"
# Names of the two sides, and of what stands before both; those of ShareGPT are among them.
ROLES = {
    "system": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "model": "assistant",
}
# The keys of a turn: of OpenAI and transformers, and of ShareGPT.
_KEYS = (("role", "content"), ("from", "value"))
# What says of a turn, by 0 or false, that a training leaves it out: of OpenAI, axolotl and ms-swift.
_WEIGHTS = ("weight", "train", "training", "loss", "loss_scale")
_YES, _NO = ("true", "yes"), ("false", "no")
# What a turn may have beside its text, and some chat templates write.
_THOUGHTS = ("reasoning_content", "reasoning", "thinking")

Turn = dict[str, str]


def split_conversation(
    cells: Sequence[Any], system: str | None, where: str
) -> tuple[str, str, str] | None:
    """What is asked last in a conversation, what is answered, and the turns before that.

    Args:
        cells: the columns of one row, which follow one another: lists of turns, or the same as JSON.
        system: what the system is told, from a column of its own; None or blank for nothing.
        where: name of the row, for messages.

    Returns:
        The earlier turns as JSON (:func:`read_earlier` reads it), prompt and response without blanks at
        their ends. None where the conversation does not end with a question of the user and the answer to
        it, or has turns of others, such as tools, or where that answer is not to be learned.

    Raises:
        ValueError: a cell holds no turns, the system's text is there twice, or whether the answer is to be
            learned is not understood.
    """
    given = [turn for cell in cells for turn in _turns_of(cell, where)]
    turns = [_read_turn(turn, where) for turn in given]
    known = [turn for turn in turns if turn is not None]
    if len(known) < len(turns) or [turn["role"] for turn in known[-2:]] != ["user", "assistant"]:
        return None
    if not _learns(given[-1], where):
        return None
    earlier = known[:-2]
    if system is not None and system.strip(BLANKS):
        if any(turn["role"] == "system" for turn in earlier):
            raise ValueError(
                f"{where}: the conversation has a system's turn, and so has the column `system`; drop one"
            )
        earlier = [{"role": "system", "content": system}, *earlier]
    prompt, response = (turn["content"].strip(BLANKS) for turn in known[-2:])
    return write_earlier(earlier), prompt, response


def is_learned(mark: Any) -> bool | None:
    """Whether a weight, or a yes or no, says that a training learns an answer; None if it says neither.

    Without a mark it does.
    """
    if mark is None:
        return True
    word = str(mark).strip().casefold()
    if word in (*_YES, *_NO):
        return word in _YES
    try:
        weight = float(word)
    except ValueError:
        return None
    return weight > 0 if 0 <= weight < math.inf else None


def _learns(turn: Mapping[str, Any], where: str) -> bool:
    """Whether a training learns an answer, by all keys that may tell it."""
    for key in _WEIGHTS:
        learned = is_learned(turn.get(key))
        if learned is None:
            raise ValueError(
                f"{where}: turns: {key} is {str(turn[key])[:60]!r} in the last answer, so whether that is "
                "to be learned is not known; write true or false"
            )
        if not learned:
            return False
    return True


def foreign_roles(cells: Sequence[Any], where: str) -> set[str]:
    """Roles in one row that are not known.

    Args:
        cells: as of :func:`split_conversation`.
        where: as there.
    """
    roles = {
        str(turn[key])
        for cell in cells
        for turn in _turns_of(cell, where)
        for key, _ in _KEYS
        if turn.get(key) is not None
    }
    return roles - ROLES.keys()


def _turns_of(cell: Any, where: str) -> Sequence[Any]:
    if isinstance(cell, str):
        try:
            cell = json.loads(cell)
        except ValueError:
            raise ValueError(
                f"{where}: turns: {cell[:60]!r} is text and no list of turns; name the column of the "
                "prompt under prompt and that of the response under target"
            ) from None
    if cell is None:
        return []
    if not isinstance(cell, list):
        raise ValueError(f"{where}: turns: {str(cell)[:60]!r} is no list of turns; correct the row")
    return cell


def _read_turn(turn: Any, where: str) -> Turn | None:
    """A turn with the names of transformers; None if it is of somebody else, or calls a tool."""
    for role_key, content_key in _KEYS:
        if isinstance(turn, Mapping) and turn.get(role_key) is not None:
            for key in _THOUGHTS:
                if turn.get(key):
                    raise ValueError(
                        f"{where}: turns: a turn has {key} beside its text, which chat templates "
                        "write before an answer and which is not read; write it into the text as the "
                        "template does, or drop the row"
                    )
            role, content = ROLES.get(str(turn[role_key])), turn.get(content_key)
            if role is None or turn.get("tool_calls"):
                return None
            return {"role": role, "content": _text_of(content, where)}
    raise ValueError(
        f"{where}: turns: {str(turn)[:60]!r} has neither role and content nor from and value; correct it"
    )


def _text_of(content: Any, where: str) -> str:
    """The text of a turn, which may be in parts; other parts, such as images, are refused."""
    if isinstance(content, str):
        return content
    if isinstance(content, list) and all(
        isinstance(part, Mapping)
        and part.get("type") == "text"
        and isinstance(part.get("text"), str)
        for part in content
    ):
        return "".join(part["text"] for part in content)
    raise ValueError(
        f"{where}: turns: the content {str(content)[:60]!r} is not text; drop the row, or write text alone"
    )


def write_earlier(turns: Sequence[Turn]) -> str:
    """Turns as JSON, the same for the same turns."""
    return json.dumps(list(turns), ensure_ascii=False, sort_keys=True)


def read_earlier(text: str) -> list[Turn]:
    """Turns that :func:`write_earlier` wrote."""
    turns: list[Turn] = json.loads(text)
    return turns
