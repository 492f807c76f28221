"""Which columns of a held-out file are prompt and response, by the forms that trainers read.

Imports the standard library only, since Snakemake's own environment has no more. So Parquet is not looked
into.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sft_interactions.data.files import (
    read_json_array,
    read_json_lines,
    read_separated,
    refuse_packed,
)

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
_CONVERSATIONS = ("messages", "conversations", "conversation")
_SYSTEM = ("system", "system_prompt")
_COLUMN_KEYS = ("prompt", "target", "turns", "system")
_SHOWN = 60


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
    """

    columns: dict[str, Any]
    why: str
    n_rows: int | None
    joins: bool
    between: str | None


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
                "turns=COLUMN for conversations, to --config, or save it as jsonl"
            )
        return HeldOut({**told[0], **_system_of(given, ())}, told[1], None, False, None)
    rows = _rows_of(path)
    if not rows:
        raise ValueError(f"heldout: {path} has no rows; name another file")
    columns, why = _columns_of(path, rows[0], given)
    prompt = columns.get("prompt")
    return HeldOut(
        columns=columns,
        why=why,
        n_rows=len(rows),
        joins=isinstance(prompt, list),
        between=_between(rows, prompt, columns["target"]) if isinstance(prompt, str) else None,
    )


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


def _columns_of(
    path: Path, row: Mapping[str, Any], given: Mapping[str, str]
) -> tuple[dict[str, Any], str]:
    for key in _COLUMN_KEYS:
        if key in given and given[key] not in row:
            raise ValueError(
                f"{key}: {path} has no column {given[key]!r}; name one of {', '.join(row)}"
            )
    found, why = _told(given) or _found(row) or ({}, "")
    if not found:
        raise ValueError(
            f"heldout: which columns of {path} are prompt and response is not known "
            f"({', '.join(row)}); add "
            "prompt=COLUMN target=COLUMN, or turns=COLUMN for conversations, to --config"
        )
    return {**found, **_system_of(given, row)}, why


def _system_of(given: Mapping[str, str], columns: Collection[str]) -> dict[str, str]:
    name = given.get("system") or next((name for name in _SYSTEM if name in columns), None)
    return {"system": name} if name else {}


def _told(given: Mapping[str, str]) -> tuple[dict[str, Any], str] | None:
    if "turns" in given:
        return {"turns": given["turns"]}, "given as turns"
    if "prompt" in given and "target" in given:
        return {"prompt": given["prompt"], "target": given["target"]}, "given as prompt and target"
    return None


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


def _holds_turns(cell: Any) -> bool:
    if isinstance(cell, str):
        try:
            cell = json.loads(cell)
        except ValueError:
            return False
    return isinstance(cell, list) and bool(cell) and isinstance(cell[0], Mapping)


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
