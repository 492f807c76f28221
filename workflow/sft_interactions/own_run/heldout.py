"""Which columns of a held-out file are prompt and response, by the forms that trainers read.

Imports the standard library only, since Snakemake's own environment has no more. So Parquet is not looked
into.
"""

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sft_interactions.data.conversations import is_learned
from sft_interactions.data.files import (
    read_json_array,
    read_json_lines,
    read_separated,
    refuse_packed,
)
from sft_interactions.data.looks import BLANKS

# Columns of prompt and response, in the order in which they are looked for. Of the prompt the first column
# must be there, the others may.
_FORMS = (
    (("instruction", "input"), "output"),  # Alpaca
    (("instruction", "context"), "response"),  # Dolly
    (("instruction",), "response"),
    (("prompt",), "completion"),  # TRL
    (("prompt",), "response"),
    (("question",), "answer"),
    (("input",), "output"),
    (("query",), "response"),
    (("text",), "label"),
)
# Columns that may be a part of the prompt; a form that leaves one out is not taken by itself.
_OF_PROMPTS = (
    "prompt",
    "instruction",
    "input",
    "context",
    "question",
    "query",
    "passage",
    "document",
    "choices",
    "options",
    "title",
    "text_pair",
    "knowledge",
    "premise",
    "hypothesis",
)
# Columns of responses, of which a row has one.
_RESPONSES = ("completion", "response", "output", "answer")
# Columns that tell responses which are wanted from others, of TRL and of LLaMA-Factory, and what they hold;
# 0 and 1 are more often the numbers of classes.
_WANTED = ("label", "kto_tag")
_YES_OR_NO = ("true", "false")
# Columns that leave a row out of a training by 0.
_WEIGHTS = ("weight", "loss_scale")
_CONVERSATIONS = ("messages", "conversations", "conversation")
_SYSTEM = ("system", "system_prompt")
# Columns that trainers put into a prompt besides.
_UNREAD = {
    "history": "earlier turns",
    "tools": "tools",
    "images": "images",
    "videos": "videos",
    "audios": "sounds",
    "chat_template_kwargs": "settings of the chat template",
}
# What trainers call the one who answers, in turns.
_ANSWERS = ("assistant", "gpt", "chatgpt", "bard", "bing", "bot", "model")
_COLUMN_KEYS = ("prompt", "target", "turns", "system")


@dataclass(frozen=True)
class HeldOut:
    """A held-out file as a data set of the config.

    Attributes:
        columns: the keys ``prompt`` and ``target``, or ``turns``, and ``system``.
        why: what they were told by.
        n_rows: rows of the file; None where they are not counted.
        joins: whether a prompt is made of several columns.
        between: what stands between prompt and response where the two are joined as they are: the blanks
            at the end of one and at the beginning of the other. None where they are no plain texts, or
            where it is not the same in all rows.
        blank: the first row, from 1 on, that has blanks where they are dropped: ``start`` of the prompt,
            ``end`` of the prompt, start of the ``response``, ``last`` of the response; without those that
            no row has.
        answered_before: the first row, from 1 on, with an answer before its last one, if there is one.
        unread: further columns, in which something stands.
    """

    columns: dict[str, Any]
    why: str
    n_rows: int | None
    joins: bool
    between: str | None
    blank: Mapping[str, int] = field(default_factory=dict)
    answered_before: int | None = None
    unread: Sequence[str] = ()


def read_heldout(path: Path, given: Mapping[str, str]) -> HeldOut:
    """Find the columns of a held-out file.

    Args:
        path: jsonl, json, csv, tsv or Parquet.
        given: columns that the user names, by ``prompt``, ``target``, ``turns`` and ``system``.

    Raises:
        ValueError: the file cannot be read, or its columns are of no known form. The message says what to
            do.
    """
    if not path.is_file():
        raise ValueError(
            f"heldout: there is no file {path}; name one with prompts that the model was not trained on"
        )
    refuse_packed(path)
    if path.suffix == ".parquet":
        told = _told(given)
        if told is None:
            raise ValueError(
                f"heldout: the columns of {path} are not looked into; add prompt=COLUMN target=COLUMN, or "
                "turns=COLUMN for conversations, to --config, or save it as jsonl (which prompt and "
                "completion as turns of their own need)"
            )
        return HeldOut({**told[0], **_system_of(given, ())}, told[1], None, False, None)
    rows = _rows_of(path)
    if not rows:
        raise ValueError(f"heldout: {path} has no rows; name another file")
    columns, why = _columns_of(path, rows, given)
    _refuse_unread(path, rows, columns)
    _refuse_unwanted(path, rows, columns)
    _refuse_weightless(path, rows, columns)
    prompt = columns.get("prompt")
    return HeldOut(
        columns=columns,
        why=why,
        n_rows=len(rows),
        joins=isinstance(prompt, list),
        between=_between(rows, prompt, columns["target"]) if isinstance(prompt, str) else None,
        blank=_blank_rows([_texts_of(row, columns) for row in rows]),
        answered_before=_first(_n_answers(row, columns.get("turns", [])) > 1 for row in rows),
        unread=[
            name
            for name, cell in _filled(rows).items()
            if _holds(cell) and name not in _names_in(columns)
        ],
    )


def find_name(
    path: Path, columns: Mapping[str, Any], names: Collection[str]
) -> tuple[int, str] | None:
    """The first row, from 1 on, whose prompt or response holds one of some names, and that name.

    Args:
        path: a file that :func:`read_heldout` has read; of Parquet nothing is known.
        columns: as it has found them.
        names: of special tokens.
    """
    if path.suffix == ".parquet":
        return None
    for number, row in enumerate(_rows_of(path), start=1):
        asked, answered = _texts_of(row, columns)
        for name in names:
            if any(name in text for text in (*asked, answered)):
                return number, name
    return None


def _rows_of(path: Path) -> Sequence[Mapping[str, Any]]:
    match path.suffix:
        case ".jsonl":
            return [row for _, row in read_json_lines(path)]
        case ".json":
            try:
                return [row for _, row in read_json_array(path)]
            except ValueError as error:
                if "set format to jsonl" in str(error):
                    raise ValueError(
                        f"heldout: {path} has an object a line; call it .jsonl"
                    ) from error
                raise
        case ".csv" | ".tsv":
            is_csv = path.suffix == ".csv"
            names, lines = read_separated(path, "," if is_csv else "\t", quoted=is_csv)
            return [dict(zip(names, fields, strict=True)) for _, fields in lines]
    raise ValueError(
        f"heldout: {path}: its name does not tell what it is; name a .jsonl, .json, .csv, .tsv or "
        ".parquet file"
    )


def _filled(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """All columns, each with the first cell that holds something; a row may lack what others have."""
    found: dict[str, Any] = {}
    for row in rows:
        for name, cell in row.items():
            if not _holds(found.get(name)):
                found[name] = cell
    return found


def _columns_of(
    path: Path, rows: Sequence[Mapping[str, Any]], given: Mapping[str, str]
) -> tuple[dict[str, Any], str]:
    row = _filled(rows)
    for key in _COLUMN_KEYS:
        if key in given and given[key] not in row:
            raise ValueError(
                f"{key}: {path} has no column {given[key]!r}; name one of {', '.join(row)}"
            )
    told = _told(given)
    found, why = told or _found(row) or ({}, "")
    if found and not told:
        _refuse_partial(path, rows, found)
        _refuse_second(path, rows, found)
    if not found:
        raise ValueError(
            f"heldout: which columns of {path} are prompt and response is not known ({', '.join(row)}); "
            "add prompt=COLUMN target=COLUMN, or turns=COLUMN for conversations, to --config"
        )
    return {**found, **_system_of(given, row)}, why


def _system_of(given: Mapping[str, str], columns: Collection[str]) -> dict[str, str]:
    name = given.get("system") or next((name for name in _SYSTEM if name in columns), None)
    return {"system": name} if name else {}


def _told(given: Mapping[str, str]) -> tuple[dict[str, Any], str] | None:
    columns = {key: given[key] for key in ("prompt", "target") if key in given}
    if "turns" in given:
        for key in columns:
            raise ValueError(
                f"turns: {key} is given too, and one of the two would be ignored; drop one"
            )
        return {"turns": given["turns"]}, "given as turns"
    if len(columns) == 1:
        (known,) = columns
        other = "target" if known == "prompt" else "prompt"
        raise ValueError(f"{known}: is given without {other}; add {other}=COLUMN to --config")
    return (columns, "given as prompt and target") if columns else None


def _found(row: Mapping[str, Any]) -> tuple[dict[str, Any], str] | None:
    for name in _CONVERSATIONS:
        if _holds_turns(row.get(name)):
            return {"turns": name}, f"the column {name!r} holds conversations"
    for prompts, target in _FORMS:
        if prompts[0] not in row or target not in row:
            continue
        if _holds_turns(row[prompts[0]]) and _holds_turns(row[target]):
            return {
                "turns": [prompts[0], target]
            }, "both columns hold turns, which follow one another"
        there = [name for name in prompts if name in row]
        prompt: str | list[str] = there if len(there) > 1 else there[0]
        return {"prompt": prompt, "target": target}, f"columns {', '.join((*there, target))}"
    return None


def _names_in(columns: Mapping[str, Any]) -> list[str]:
    """The columns that are read."""
    return [
        name
        for value in columns.values()
        for name in ([value] if isinstance(value, str) else value)
    ]


def _refuse_partial(
    path: Path, rows: Sequence[Mapping[str, Any]], found: Mapping[str, Any]
) -> None:
    """Refuse a form that was found by itself and leaves out texts that may belong to the prompt."""
    read, turns = _names_in(found), found.get("turns")
    left = [
        name
        for name in _OF_PROMPTS
        if name not in read and any(_may_belong(row, name, turns) for row in rows)
    ]
    if left:
        mend = "drop it, if the training did not use it"
        if turns is None:
            mend = (
                "add prompt=COLUMN target=COLUMN to --config (of several columns make one, as the training "
                "did), or drop it"
            )
        elif isinstance(turns, str):
            mend = f"add turns={turns} to --config, or {mend}"
        raise ValueError(
            f"heldout: {path} has the column {left[0]} beside {', '.join(sorted(read))}, and whether it is "
            f"a part of the prompt is not known; {mend}"
        )


def _may_belong(row: Mapping[str, Any], name: str, turns: str | Sequence[str] | None) -> bool:
    """Whether a cell holds what may belong to the prompt, and what its turns do not say themselves."""
    if not _holds(row.get(name)):
        return False
    if turns is None:
        return True
    said = [
        text
        for turn in _turns(row, turns)
        for text in _texts_in(turn.get("content", turn.get("value")))
    ]
    return not all(any(text.strip() in one for one in said) for text in _texts_in(row[name]))


def _texts_in(cell: Any) -> Iterator[str]:
    """All that a cell says, be it in a list or by names."""
    if isinstance(cell, Mapping | list):
        for part in cell.values() if isinstance(cell, Mapping) else cell:
            yield from _texts_in(part)
    elif cell is not None:
        yield str(cell)


def _refuse_second(path: Path, rows: Sequence[Mapping[str, Any]], found: Mapping[str, Any]) -> None:
    """Refuse a form that was found by itself where a further column may be that of the responses."""
    if isinstance(found.get("turns"), str):
        return
    target = found["target"] if "target" in found else found["turns"][-1]
    ask = "add prompt=COLUMN target=COLUMN to --config, or " if "target" in found else ""
    for name in _RESPONSES:
        number = _first(_is_another(row, name, found) for row in rows)
        if number is not None and name != target:
            raise ValueError(
                f"heldout: {path}: row {number}: the columns {target} and {name} may both be the response; "
                f"{ask}drop the one that was not trained on"
            )


def _is_another(row: Mapping[str, Any], name: str, found: Mapping[str, Any]) -> bool:
    """Whether a cell holds something, and not the response once more."""
    return _holds(row.get(name)) and row[name] != _texts_of(row, found)[1]


def _refuse_unwanted(
    path: Path, rows: Sequence[Mapping[str, Any]], columns: Mapping[str, Any]
) -> None:
    """Refuse rows that say of each response whether it is wanted, as those of KTO do."""
    if columns.get("target", _RESPONSES[0]) not in _RESPONSES:
        return
    for name in _WANTED:
        cells = [row.get(name) for row in rows]
        marked = [cell for cell in cells if cell is not None and cell != ""]
        are_marks = all(str(cell).strip().lower() in _YES_OR_NO for cell in marked)
        if marked and are_marks and name not in _names_in(columns):
            number = cells.index(marked[0]) + 1
            raise ValueError(
                f"heldout: {path}: row {number}: {name} is {str(marked[0]).lower()} beside "
                f"{', '.join(_names_in(columns))}, as where a training (KTO) is told which responses are "
                f"wanted, and it is not read; keep the rows with {name} true and drop the column"
            )


def _refuse_weightless(
    path: Path, rows: Sequence[Mapping[str, Any]], columns: Mapping[str, Any]
) -> None:
    """Refuse rows that a training leaves out by their weight."""
    for name in _WEIGHTS:
        number = _first(is_learned(row.get(name)) is False for row in rows)
        if number is not None and name not in _names_in(columns):
            raise ValueError(
                f"heldout: {path}: row {number}: {name} is 0, so it is not to be learned, and the column "
                "is not read; leave such rows out, or drop the column if the training did not use it"
            )


def _holds_turns(cell: Any) -> bool:
    if isinstance(cell, str):
        try:
            cell = json.loads(cell)
        except ValueError:
            return False
    return isinstance(cell, list) and bool(cell) and isinstance(cell[0], Mapping)


def _refuse_unread(
    path: Path, rows: Sequence[Mapping[str, Any]], columns: Mapping[str, Any]
) -> None:
    """Refuse what trainers put into a prompt out of further columns, and what is not read here."""
    for name, what in _UNREAD.items():
        number = _first(_holds(row.get(name)) for row in rows)
        if number is not None and name not in columns.values():
            raise ValueError(
                f"heldout: {path}: row {number}: the column {name} holds {what}, which trainers put "
                "into the prompt and which are not read here; leave such rows out, or drop the column if "
                "the training did not use it"
            )


def _holds(cell: Any) -> bool:
    return bool(cell.strip()) and cell.strip() != "[]" if isinstance(cell, str) else bool(cell)


def _first(marks: Iterable[bool]) -> int | None:
    """Number, from 1 on, of the first row that is marked."""
    return next((number for number, mark in enumerate(marks, start=1) if mark), None)


def _texts_of(row: Mapping[str, Any], columns: Mapping[str, Any]) -> tuple[list[str], str]:
    """The texts that a row's prompt is made of, and its response; what is no text is left out."""
    if "turns" in columns:
        *_, asked, answered = ["", "", *_contents(row, columns["turns"])]
        return [asked], answered
    names = columns["prompt"] if isinstance(columns["prompt"], list) else [columns["prompt"]]
    cells = [row.get(name) for name in (*names, columns["target"])]
    *asked_of, response = (cell if isinstance(cell, str) else "" for cell in cells)
    return asked_of, response


def _contents(row: Mapping[str, Any], names: str | Sequence[str]) -> list[str]:
    """The texts of a row's turns; a mistake in them is told where rows are read."""
    texts = [turn.get("content", turn.get("value")) for turn in _turns(row, names)]
    return [text if isinstance(text, str) else "" for text in texts]


def _n_answers(row: Mapping[str, Any], names: str | Sequence[str]) -> int:
    return sum(turn.get("role", turn.get("from")) in _ANSWERS for turn in _turns(row, names))


def _turns(row: Mapping[str, Any], names: str | Sequence[str]) -> Iterator[Mapping[str, Any]]:
    """The turns of a row; what is none counts as one without keys."""
    for name in [names] if isinstance(names, str) else names:
        cell = row.get(name)
        turns = json.loads(cell) if isinstance(cell, str) and _holds_turns(cell) else cell
        for turn in turns if isinstance(turns, list) else []:
            yield turn if isinstance(turn, Mapping) else {}


def _blank_rows(texts: Sequence[tuple[Sequence[str], str]]) -> dict[str, int]:
    """See :class:`HeldOut`. Each text that a prompt is made of loses what is at its ends."""
    found = {
        "start": _first(any(map(_has_start, asked)) for asked, _ in texts),
        "end": _first(any(t != t.rstrip(BLANKS) for t in asked) for asked, _ in texts),
        "response": _first(_has_start(answered) for _, answered in texts),
        "last": _first(answered != answered.rstrip(BLANKS) for _, answered in texts),
    }
    return {place: row for place, row in found.items() if row is not None}


def _has_start(text: str) -> bool:
    return text != text.lstrip(BLANKS)


def _between(rows: Sequence[Mapping[str, Any]], prompt: str, target: str) -> str | None:
    found = set()
    for row in rows:
        texts = row.get(prompt), row.get(target)
        if not all(isinstance(text, str) for text in texts):
            return None
        asked, answered = (str(text) for text in texts)
        end = asked[len(asked.rstrip()) :]
        found.add(end + answered[: len(answered) - len(answered.lstrip())])
    return found.pop() if len(found) == 1 else None
