"""Writes config/README.md, the page with every config key, from workflow/schemas/config.schema.yaml.

python docs/config_reference.py           writes the page
python docs/config_reference.py --check   exits with 1 and a diff if the page is not what the schema says
"""

import argparse
import difflib
import json
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
SCHEMA = ROOT / "workflow" / "schemas" / "config.schema.yaml"
PAGE = ROOT / "config" / "README.md"
HEAD = """\
# Every config key

One config file is one study. `config/config.yaml` is the default study; copy it for a study of your
own, and run it with `snakemake --cores 8 --configfile my-study.yaml`.
[docs/data.md](../docs/data.md) is the guide. A key that is unknown, missing or out of range is
reported with its file and line before any job starts. Files are YAML 1.2: `0500` is 500, `no` is the
text no, `5e-4` is a number, and true and false are the only words for yes and no.

In the keys below `{model}`, `{dataset}` and `{run}` are names of your choice, and `[]` is an entry
of a list. A key without a default may be left out unless it is required.

This page is written by `python docs/config_reference.py` out of
`workflow/schemas/config.schema.yaml`. Change the schema, not the page.
"""

Schema = dict[str, Any]
Row = tuple[str, str, str, str]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="compare, and write nothing")
    check = parser.parse_args().check
    page = Reference(yaml.safe_load(SCHEMA.read_text())).page()
    if not check:
        PAGE.write_text(page)
        return 0
    old = PAGE.read_text() if PAGE.exists() else ""
    if page == old:
        return 0
    names = ("config/README.md", "what the schema says")
    changes = difflib.unified_diff(old.splitlines(), page.splitlines(), *names, lineterm="", n=0)
    print(*changes, sep="\n")
    print("config/README.md is out of date: run python docs/config_reference.py", file=sys.stderr)
    return 1


class Reference:
    """The page of a schema: a section for each block of keys at the top, then for each shared block."""

    def __init__(self, schema: Schema) -> None:
        self.schema = schema

    def page(self) -> str:
        top = self.schema["properties"]
        blocks = {
            key: value for key, value in top.items() if self._resolved(value)["type"] == "object"
        }
        shared = {
            name: value
            for name, value in self.schema["$defs"].items()
            if value.get("type") == "object" and name not in top
        }
        plain = {**self.schema, "properties": {k: v for k, v in top.items() if k not in blocks}}
        sections = ["## The study\n\n" + _table(self._rows(plain, ""))]
        for key, value in blocks.items():
            block = self._resolved(value)
            required = " Required." if key in self.schema["required"] else ""
            head = f"## {key}\n\n{block['description'].strip()}{required}\n\n"
            sections.append(head + _table(self._rows(block, f"{key}.")))
        for name, block in shared.items():
            head = f"## {name}\n\n{block['description'].strip()} Several blocks above have it.\n\n"
            sections.append(head + _table(self._rows(block, f"{name}.")))
        return "\n".join([HEAD, *sections])

    def _resolved(self, value: Schema) -> Schema:
        """A schema with its reference replaced by what it names."""
        if "$ref" not in value:
            return value
        block = self.schema["$defs"][value["$ref"].rpartition("/")[2]]
        return {**block, **{key: entry for key, entry in value.items() if key != "$ref"}}

    def _with_items(self, value: Schema) -> Schema:
        """A list's schema with the reference of its entries replaced by what it names."""
        return {**value, "items": self._resolved(value["items"])} if "items" in value else value

    def _rows(self, block: Schema, prefix: str) -> Iterator[Row]:
        """A row for each key of a block, and for those of the blocks inside it."""
        entries = block.get("additionalProperties")
        if isinstance(entries, dict):
            yield from self._rows(entries, f"{prefix}{{{prefix.removesuffix('s.')}}}.")
        for key, value in block.get("properties", {}).items():
            whole = self._with_items(self._resolved(value))
            required = key in block.get("required", ())
            yield (
                f"`{prefix}{key}`",
                self._link(value)
                if "$ref" in value and whole.get("type") == "object"
                else _values(whole),
                "required" if required else _default(whole),
                " ".join(whole["description"].split()),
            )
            if "$ref" not in value:
                for one in (value, *value.get("oneOf", ())):
                    yield from self._rows(one, f"{prefix}{key}.")
                yield from self._rows(value.get("items", {}), f"{prefix}{key}[].")

    def _link(self, value: Schema) -> str:
        name = value["$ref"].rpartition("/")[2]
        return f"a block [{name}](#{name})"


def _table(rows: Iterable[Row]) -> str:
    lines = ["| key | values | default | meaning |", "|---|---|---|---|"]
    lines += ["| " + " | ".join(map(_cell, row)) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    """Text of a cell, with its bars written so that they do not end it, on GitHub or on the site."""
    in_code = re.compile(r"`([^`]*\|[^`]*)`")
    text = in_code.sub(lambda match: f"<code>{match[1].replace('|', '&#124;')}</code>", text)
    return text.replace("|", r"\|")


def _default(value: Schema) -> str:
    if "default" not in value or value["default"] == {}:
        return ""
    return f"`{json.dumps(value['default'], ensure_ascii=False)}`"


def _values(value: Schema) -> str:
    """Type and allowed values in words."""
    if "oneOf" in value:
        return " or ".join(map(_values, value["oneOf"]))
    if "const" in value:
        return f"`{value['const']}`"
    if "enum" in value:
        return ", ".join(f"`{choice}`" for choice in value["enum"])
    return {
        "null": lambda _: "`null`",
        "boolean": lambda _: "`true` or `false`",
        "integer": _number,
        "number": _number,
        "string": _text,
        "array": _list,
        "object": _block,
    }[value["type"]](value)


def _number(value: Schema) -> str:
    limits = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    found = [f"{sign} {value[limit]}" for limit, sign in limits.items() if limit in value]
    return " ".join([value["type"], ", ".join(found)]).strip()


def _text(value: Schema) -> str:
    return f"text like `{value['pattern']}`" if "pattern" in value else "text"


def _list(value: Schema) -> str:
    items = "blocks" if "properties" in value["items"] else _values(value["items"])
    notes = [f"at least {value['minItems']}"] if "minItems" in value else []
    notes += ["no two alike"] if value.get("uniqueItems") else []
    return f"list of {items}" + (f" ({', '.join(notes)})" if notes else "")


def _block(value: Schema) -> str:
    entries = value.get("additionalProperties")
    return f"names, each with {_values(entries)}" if isinstance(entries, dict) else "block"


if __name__ == "__main__":
    sys.exit(main())
