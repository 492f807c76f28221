"""Reading config files: YAML 1.2, in which every form means what it looks like, with line numbers.

YAML 1.1, which Snakemake reads, takes ``0500`` for 320, ``no`` for false, ``5e-4`` for text, and of two
equal keys the last one. Here they are 500, the text ``no`` and 0.0005, and a repeated key is an error.
"""

import math
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import CollectionNode

from sft_interactions.config import ConfigError, find_place

COMMAND_LINE = "--config"


def read(
    paths: Sequence[str | Path], overrides: Mapping[str, Any] | None = None
) -> tuple[dict[str, Any], dict[str, str]]:
    """Read config files, each of which is laid over those before it.

    Args:
        paths: YAML or JSON files in UTF-8.
        overrides: keys of the command line, laid over the files.

    Returns:
        The config, with texts as keys, and where each of its keys stands (``file, line 3``) by the key's
        path, written as ``finetune.steps``.

    Raises:
        ConfigError: a file is not there, is not YAML, repeats a key, or holds a value that a config cannot
            hold.
    """
    config: dict[str, Any] = {}
    places: dict[str, str] = {}
    for path in paths:
        _lay_over(config, _read_file(Path(path), places))
    if overrides:
        _lay_over(config, _Plain(COMMAND_LINE, places).mapping(overrides, ""))
    return config, places


def _lay_over(config: dict[str, Any], other: Mapping[str, Any]) -> None:
    for key, value in other.items():
        if isinstance(value, dict) and isinstance(config.get(key), dict):
            _lay_over(config[key], value)
        else:
            config[key] = value


def _read_file(path: Path, places: dict[str, str]) -> dict[str, Any]:
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}; name a config file") from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ConfigError(f"{path}, line {line}: not UTF-8; save the file as UTF-8") from error
    # The round-trip loader is the one that keeps line numbers.
    yaml = YAML(typ="rt", pure=True)
    try:
        _refuse_circles(yaml.compose(text), str(path))
        loaded = yaml.load(text)
    except ConfigError:
        raise
    except DuplicateKeyError as error:
        line = error.problem_mark.line + 1
        first = str(error.problem).split('"')[1]
        raise ConfigError(
            f"{path}, line {line}: the key {first} stands twice; keep one of the two"
        ) from error
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{path}, line {mark.line + 1}" if mark else str(path)
        raise ConfigError(f"{place}: not YAML: {error.problem or error.context}") from error
    except (YAMLError, ValueError, RecursionError) as error:
        detail = str(error).partition("\n")[0]
        raise ConfigError(f"{path}: not YAML: {detail}") from error
    if not isinstance(loaded, Mapping):
        raise ConfigError(f"{path}: holds no keys; write `key: value` lines")
    return _Plain(str(path), places).mapping(loaded, "")


def _refuse_circles(node: Any, source: str, inside: tuple[Any, ...] = ()) -> None:
    """An alias may not name a block that it stands in; the loader would take it for null."""
    if any(node is other for other in inside):
        line = inside[-1].start_mark.line + 1
        raise ConfigError(f"{source}, line {line}: a block holds itself; remove the alias")
    if isinstance(node, CollectionNode):
        for entry in node.value:
            for part in entry if isinstance(entry, tuple) else (entry,):
                _refuse_circles(part, source, (*inside, node))


class _Plain:
    """Turns what the YAML library gives into dictionaries, lists, texts, numbers, booleans and None."""

    def __init__(self, source: str, places: dict[str, str]) -> None:
        self.source = source
        self.places = places

    def mapping(self, block: Mapping[Any, Any], where: str) -> dict[str, Any]:
        plain: dict[str, Any] = {}
        for given, value in block.items():
            line = self._line(block, given)
            if isinstance(given, bool) or not isinstance(given, str | int):
                raise ConfigError(f"{line}: the key {given} is not a text; put it in quotes")
            key = str(given)
            if key in plain:
                raise ConfigError(f"{line}: the key {key} stands twice; keep one of the two")
            path = f"{where}.{key}" if where else key
            self.places[path] = line
            plain[key] = self.value(value, path)
        return plain

    def value(self, value: Any, where: str) -> Any:
        if isinstance(value, Mapping):
            return self.mapping(value, where)
        if isinstance(value, list | tuple):
            return [self.value(item, f"{where}.{i}") for i, item in enumerate(value)]
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, str):
            return str(value)
        if isinstance(value, date) and not isinstance(value, datetime):
            return value.isoformat()
        if isinstance(value, int):
            return int(value)
        if isinstance(value, float):
            if not math.isfinite(value):
                raise ConfigError(f"{self.place(where)}: {where}: {value} is not a finite number")
            return float(value)
        raise ConfigError(
            f"{self.place(where)}: {where}: {value} is neither a number nor a text; put it in quotes"
        )

    def place(self, where: str) -> str:
        return find_place(self.places, where) or self.source

    def _line(self, block: Any, key: Any) -> str:
        try:
            return f"{self.source}, line {block.lc.key(key)[0] + 1}"
        except (AttributeError, KeyError):  # of the command line, or merged in with `<<`
            return self.source
