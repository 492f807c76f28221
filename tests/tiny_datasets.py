"""Small data sets, and the block of the config that is about them."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

EVERY = {"train": 6, "validation": 3, "analysis": 3}


def block(source: str, **keys: Any) -> dict[str, Any]:
    return {"source": source, "prompt": "text", "target": "label", **EVERY, **keys}


def rows(count: int, labels: Sequence[str] = ("no", "yes")) -> list[dict[str, str]]:
    return [{"text": f"row number {i}", "label": labels[i % len(labels)]} for i in range(count)]


def write_jsonl(path: Path, table: Sequence[Mapping[str, Any]]) -> str:
    """Write rows, and return the file as a ``source``."""
    path.write_text("".join(json.dumps(row) + "\n" for row in table), encoding="utf-8")
    return f"path:{path}"
