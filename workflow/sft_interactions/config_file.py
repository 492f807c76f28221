"""Reading config files: YAML 1.2, in which every form means what it looks like, with line numbers.

YAML 1.1, which Snakemake reads, takes ``0500`` for 320, ``no`` for false, ``5e-4`` for text, and of two
equal keys the last one. Here they are 500, the text ``no`` and 0.0005, and a repeated key is an error.

Imports PyYAML only, which comes with Snakemake: its parser is used, and its rules of what a plain word is
are replaced by those of the core schema of YAML 1.2 (section 10.3.2 of its specification).
"""

import itertools
import json
import math
import os
import re
import unicodedata
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from sft_interactions.config import SCHEMA_PATH, ConfigError
from sft_interactions.orphans import PARTIAL

COMMAND_LINE = "--config"
# Snakemake's option by each of its names.
_OPTIONS = {
    "--config": "--config",
    "-C": "--config",
    "--configfile": "--configfile",
    "--configfiles": "--configfile",
}
_PROFILES = ("--profile", "--workflow-profile")
_PROFILES_HERE = SCHEMA_PATH.parents[2] / "profiles"
# By the key of a profile the option that takes its place.
_OF_PROFILES = {"config": "--config", "configfile": "--configfile", "configfiles": "--configfile"}
_KEY_OF_PROFILE = re.compile(rf"^({'|'.join(_OF_PROFILES)})\s*:", re.MULTILINE)
_TOGETHER = {
    "--config": "write all values after that --config, or into a config file",
    "--configfile": "write all files after that --configfile",
}
# Options that make Snakemake forget what a table was made of.
_FORGETTING = ("--cleanup-metadata", "--cm")
# Code is left to the user: a new version may give the same tables.
_NEEDED_TRIGGERS = ("mtime", "params", "input")
# What YAML makes of escapes that mean something else in a regular expression or a path, as in "\\bno\\b".
_ESCAPES = {"\a": "a", "\b": "b", "\v": "v", "\f": "f", "\x1b": "e"}
# Pairs of quotation marks that are text to YAML.
_TYPOGRAPHIC = frozenset(
    itertools.product("\u201c\u201d\u201e\u2018\u2019\u201a\u00ab\u00bb", repeat=2)
)
_UNSEEN = {"Zs", "Zl", "Zp", "Cf"}  # categories of Unicode
# Blanks of web pages and word processors where YAML needs its own.
_PASTED = re.compile(
    r"(?:^ *|: *)[\u00a0\u1680\u2000-\u200b\u202f\u205f\u2060\u3000\ufeff]", re.MULTILINE
)
_TAG = "tag:yaml.org,2002:"
_PLAIN_WORDS = (
    ("null", r"~|null|Null|NULL|", "~nN\0"),
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+.0123456789",
    ),
    ("merge", "<<", "<"),
)

_OWNER = "made_by.json"


class _Tagged(yaml.ScalarNode):
    """A value with a tag before it, such as ``!!int``."""


class _Loader(yaml.SafeLoader):
    """PyYAML's parser with the plain words of YAML 1.2, which tells values that have a tag."""

    def compose_scalar_node(self, anchor: dict[Any, yaml.Node]) -> yaml.ScalarNode:
        tag = self.peek_event().tag  # type: ignore[no-untyped-call]
        node = super().compose_scalar_node(anchor)
        if tag is None:
            return node
        return _Tagged(node.tag, node.value, node.start_mark, node.end_mark, node.style)


_Loader.yaml_implicit_resolvers = {}  # none of those of YAML 1.1
for _name, _pattern, _first in _PLAIN_WORDS:
    _words = re.compile(rf"(?:{_pattern})\Z")
    _Loader.add_implicit_resolver(_TAG + _name, _words, ["" if c == "\0" else c for c in _first])


def check_command_line(arguments: Sequence[str]) -> None:
    """Check that no option of the config, and no key in it, is given twice: Snakemake drops the first.

    Nor may an option make Snakemake forget what a table was made of.

    Args:
        arguments: of the command line, as ``sys.argv`` has them.

    Raises:
        ConfigError: one is, or does.
    """
    names = [argument.partition("=")[0] for argument in arguments]
    for name in names:
        if name in _FORGETTING:
            raise ConfigError(
                f"{name}: tables of an older config would be taken for those of this one; drop the option, "
                "which nothing here needs: changed code makes no table anew, and a killed run goes on"
            )
    given = [_OPTIONS[name] for name in names if name in _OPTIONS]
    for option in dict.fromkeys(given):
        if given.count(option) > 1:
            raise ConfigError(
                f"{option} is given {given.count(option)} times, and only the last one would count; write "
                f"all its values after one {option}"
            )
    keys = list(_keys_given(arguments))
    for key in dict.fromkeys(keys):
        if keys.count(key) > 1:
            raise ConfigError(
                f"--config: {key}= is given {keys.count(key)} times, and only the last one would count; "
                "drop all but one"
            )


def _keys_given(arguments: Sequence[str]) -> Iterator[str]:
    """Keys of the values that follow ``--config``."""
    is_config = False
    for argument in arguments:
        name, _, value = argument.partition("=")
        if argument.startswith("-"):
            is_config = _OPTIONS.get(name) == "--config"
            if is_config and value:
                yield value.partition("=")[0]
        elif is_config and "=" in argument:
            yield name


def check_profiles(arguments: Sequence[str], environment: Mapping[str, str]) -> None:
    """Check that no profile gives a config that the command line would drop.

    Args:
        arguments: of the command line, as ``sys.argv`` has them.
        environment: of the shell; it may name a profile and the folder of profiles.

    Raises:
        ConfigError: one does.
    """
    words = [word for argument in arguments for word in argument.split("=", 1)]
    given = {_OPTIONS[word] for word in words if word in _OPTIONS}
    if "--mode" in words or not given:
        return  # Snakemake itself gives the config to the jobs that it starts
    for place in _places_of_profiles(words, environment):
        files = [*place.glob("config*.yaml"), *place.glob("profile*.yaml")]
        for file in [place] if place.is_file() else sorted(files):
            for key in _KEY_OF_PROFILE.findall(file.read_text("utf-8")):
                option = _OF_PROFILES[key]
                if option in given:
                    raise ConfigError(
                        f"{file}: its {key} would be dropped, since {option} is on the command line too; "
                        f"{_TOGETHER[option]}"
                    )


def _places_of_profiles(words: Sequence[str], environment: Mapping[str, str]) -> list[Path]:
    """Files and folders that may be the profiles of a command line, or hold them."""
    names = [environment.get("SNAKEMAKE_PROFILE", "none")]
    is_name = False
    for word in words:
        if word.startswith("-"):
            is_name = word in _PROFILES
        elif is_name:
            names.append(word)
    home = environment.get("XDG_CONFIG_HOME") or f"{environment.get('HOME', '')}/.config"
    # Names are looked for from where the command was given, which --directory is not.
    began = environment.get("PWD", ".")
    roots = [".", "profiles", began, f"{began}/profiles", f"{home}/snakemake", str(_PROFILES_HERE)]
    found = [Path(root, name) for name in names for root in roots]
    if "--workflow-profile" not in words:
        found += [
            Path("profiles/default"),
            Path(began, "profiles/default"),
            _PROFILES_HERE / "default",
        ]
    return list(dict.fromkeys(found))


def check_rerun_triggers(triggers: Collection[str]) -> None:
    """Check that what depends on a changed key or file is made anew, and not taken for done.

    Args:
        triggers: what Snakemake looks at, as its option ``--rerun-triggers`` names it.

    Raises:
        ConfigError: it would not see such a change.
    """
    missing = [trigger for trigger in _NEEDED_TRIGGERS if trigger not in triggers]
    if missing:
        raise ConfigError(
            f"--rerun-triggers: without {' and '.join(missing)} tables of an older config or of other "
            "files would be taken for those of this one; drop the option, which may be in a profile, or "
            f"add {' '.join(missing)}"
        )


def check_bookkeeping(
    *, is_touching: bool, keeps_metadata: bool, has_ancient: bool = False
) -> None:
    """Check that Snakemake keeps, and does not overwrite, what it knows of the config that a table is of.

    Args:
        is_touching: whether files only get a new time (``--touch``).
        keeps_metadata: whether Snakemake notes what a file was made of; not with ``--drop-metadata``.
        has_ancient: whether some inputs count as older than what is made of them (``--consider-ancient``).

    Raises:
        ConfigError: a change of the config would not be seen, now or later.
    """
    if is_touching:
        raise ConfigError(
            "--touch: tables of an older config or of other files would be taken for those of this one; "
            "drop the option, which nothing here needs: what is as it was is not made anew"
        )
    if has_ancient:
        raise ConfigError(
            "--consider-ancient: what is made of older files would be taken for done; drop the option, "
            "which may be in a profile and which nothing here needs: a new date alone makes nothing anew"
        )
    if not keeps_metadata:
        raise ConfigError(
            "--drop-metadata: tables of this config would later be taken for those of another one; drop "
            "the option, which may be in a profile"
        )


def check_owner(results: str | Path, configfiles: Sequence[str | Path]) -> None:
    """Check that a results folder has no runs of another study.

    A study is known by its config files, so one may be changed, but a copy of it needs a folder of its own.

    Args:
        results: the results folder.
        configfiles: those of the study, in their order.

    Raises:
        ConfigError: ``made_by.json`` there names others, or cannot be understood.
    """
    note = Path(results) / _OWNER
    if not (note.is_file() and (Path(results) / "runs").is_dir()):
        return
    try:
        known = [str(file) for file in json.loads(note.read_bytes())["configfiles"]]
    except (ValueError, KeyError, TypeError):
        raise ConfigError(f"{note}: cannot be understood; delete it") from None
    if known != _seen_from(results, configfiles):
        others = " ".join(os.path.normpath(os.path.join(results, file)) for file in known)
        raise ConfigError(
            f"results: {results} has the runs of another study, that of {others}; name another "
            f"folder, or delete {note} if the study goes on under another name"
        )


def check_unchanged(results: str | Path, digest: str) -> None:
    """Check, in a job that reads the config anew, that it is that of the run, as jobs of a batch system do.

    Snakemake would note what the job makes as made by the config that the run began with.

    Args:
        results: the results folder.
        digest: of the config that the job has read.

    Raises:
        ConfigError: :func:`note_owner` has noted another one when the run began.
    """
    try:
        known = json.loads((Path(results) / _OWNER).read_bytes()).get("config_digest")
    except (OSError, ValueError, AttributeError):
        return  # no run has noted one
    if known is not None and known != digest:
        raise ConfigError(
            f"the config is not the one that this run began with ({Path(results) / _OWNER}), since it was "
            "changed meanwhile; start the run again once it has ended, or keep another study in files of "
            "its own"
        )


def note_owner(results: str | Path, configfiles: Sequence[str | Path], digest: str) -> None:
    """Note in a results folder of which study it is, and of which config the run that begins."""
    note = Path(results) / _OWNER
    note.parent.mkdir(parents=True, exist_ok=True)
    temporary = note.with_name(f"{PARTIAL}{os.getpid()}-{_OWNER}")
    content = {"configfiles": _seen_from(results, configfiles), "config_digest": digest}
    temporary.write_text(json.dumps(content) + "\n", "utf-8")
    temporary.replace(note)


def _seen_from(results: str | Path, files: Sequence[str | Path]) -> list[str]:
    return [os.path.relpath(file, results) for file in files]


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
        _lay_over(config, _File(str(path), places).read())
    if overrides:
        given = json.loads(json.dumps(overrides, default=str))
        _lay_over(config, given)
        _note_places(given, "", places)
    return config, places


def _lay_over(config: dict[str, Any], other: Mapping[str, Any]) -> None:
    for key, value in other.items():
        if isinstance(value, dict) and isinstance(config.get(key), dict):
            _lay_over(config[key], value)
        else:
            config[key] = value


def _note_places(block: Mapping[str, Any], where: str, places: dict[str, str]) -> None:
    for key, value in block.items():
        path = f"{where}.{key}" if where else key
        places[path] = COMMAND_LINE
        if isinstance(value, dict):
            _note_places(value, path, places)


class _File:
    """One config file, and where its keys stand."""

    def __init__(self, name: str, places: dict[str, str]) -> None:
        self.name = name
        self.places = places
        self.inside: list[yaml.Node] = []

    def read(self) -> dict[str, Any]:
        try:
            node = yaml.compose(self._text(), _Loader)
        except yaml.MarkedYAMLError as error:
            pasted = _PASTED.search(self._text())
            if pasted:
                line = self._text().count("\n", 0, pasted.end()) + 1
                raise ConfigError(
                    f"{self.name}, line {line}: not YAML: a blank at its beginning or after its colon is "
                    "none of YAML's, as web pages have them; write plain blanks"
                ) from error
            mark = error.problem_mark or error.context_mark
            place = f"{self.name}, line {mark.line + 1}" if mark else self.name
            raise ConfigError(
                f"{place}: not YAML: {error.problem or error.context}; correct that line"
            ) from error
        except (yaml.YAMLError, RecursionError) as error:
            detail = str(error).partition("\n")[0]
            raise ConfigError(f"{self.name}: not YAML: {detail}; correct it") from error
        if not isinstance(node, yaml.MappingNode):
            raise ConfigError(f"{self.name}: holds no keys; write `key: value` lines")
        return self._mapping(node, "")

    def _text(self) -> str:
        path = Path(self.name)
        if path.exists() and not path.is_file():
            raise ConfigError(
                f"{self.name}: is a pipe or a folder, and every job reads its config anew; write it into a "
                "file, and name that"
            )
        try:
            return path.read_bytes().decode("utf-8-sig")
        except OSError as error:
            raise ConfigError(
                f"{self.name}: {error.strerror or error}; name a config file"
            ) from error
        except UnicodeDecodeError as error:
            line = error.object[: error.start].count(b"\n") + 1
            raise ConfigError(
                f"{self.name}, line {line}: not UTF-8; save the file as UTF-8"
            ) from error

    def _line(self, node: yaml.Node) -> str:
        return f"{self.name}, line {node.start_mark.line + 1}"

    def _mapping(self, node: yaml.MappingNode, where: str) -> dict[str, Any]:
        plain: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        has_merge = False
        for key_node, value_node in node.value:
            if key_node.tag == _TAG + "merge" and not isinstance(key_node, _Tagged):
                if has_merge:
                    raise ConfigError(
                        f"{self._line(key_node)}: the key << stands twice; write one with both blocks, "
                        "as in <<: [*a, *b]"
                    )
                has_merge = True
                merged = self._merged(value_node, where)
                continue
            key = self._key(key_node)
            if key in plain:
                raise ConfigError(
                    f"{self._line(key_node)}: the key {key} stands twice; keep one of the two"
                )
            path = f"{where}.{key}" if where else key
            self.places[path] = self._line(key_node)
            plain[key] = self._value(value_node, path)
        return {**merged, **plain}

    def _merged(self, node: yaml.Node, where: str) -> dict[str, Any]:
        """Keys of the blocks that ``<<`` names; of two with the same key the first one counts."""
        blocks = node.value if isinstance(node, yaml.SequenceNode) else [node]
        found: dict[str, Any] = {}
        for block in blocks:
            if not isinstance(block, yaml.MappingNode):
                raise ConfigError(f"{self._line(node)}: << names no block of keys; correct it")
            found = {**self._entered(block, where), **found}
        return found

    def _key(self, node: yaml.Node) -> str:
        if isinstance(node, _Tagged):
            self._refuse_tag(node, "a key")
        if isinstance(node, yaml.ScalarNode) and node.tag in (_TAG + "str", _TAG + "int"):
            return str(self._value(node, "a key"))
        shown = node.value if isinstance(node, yaml.ScalarNode) else "that is a block"
        raise ConfigError(f"{self._line(node)}: the key {shown} is not a text; put it in quotes")

    def _entered(self, node: yaml.Node, where: str) -> Any:
        """The value of a block; one inside itself, as aliases can make it, is an error."""
        if any(node is other for other in self.inside):
            raise ConfigError(
                f"{self._line(self.inside[-1])}: a block holds itself; remove the alias"
            )
        self.inside.append(node)
        value: Any
        if isinstance(node, yaml.MappingNode) and node.tag == _TAG + "map":
            value = self._mapping(node, where)
        elif isinstance(node, yaml.SequenceNode) and node.tag == _TAG + "seq":
            value = [self._value(item, f"{where}.{i}") for i, item in enumerate(node.value)]
        else:
            raise self._unknown(node, where)
        self.inside.pop()
        return value

    def _value(self, node: yaml.Node, where: str) -> Any:
        if not isinstance(node, yaml.ScalarNode):
            return self._entered(node, where)
        if isinstance(node, _Tagged):
            self._refuse_tag(node, where)
        text: str = node.value
        match node.tag.removeprefix(_TAG):
            case "null":
                return None
            case "bool":
                return text.lower() == "true"
            case "int":
                return self._whole(node, where)
            case "float":
                return self._finite(node, where)
            case "str" | "merge":
                return self._checked(node, where)
        raise self._unknown(node, where)

    def _refuse_tag(self, node: yaml.ScalarNode, where: str) -> None:
        """Refuse a tag, but that of a text before one: what stands after it need not be of its kind.

        Raises:
            ConfigError: always else.
        """
        kind = node.tag.removeprefix(_TAG)
        if kind == node.tag:
            raise self._unknown(node, where)
        if kind == "str" and node.value:
            return
        raise ConfigError(
            f"{self._line(node)}: {where}: {node.value[:60]!r} has a tag before it; write the value "
            "without the tag"
        )

    def _unknown(self, node: yaml.Node, where: str) -> ConfigError:
        return ConfigError(
            f"{self._line(node)}: {where}: the tag {node.tag} is not known here; remove it"
        )

    def _whole(self, node: yaml.ScalarNode, where: str) -> int:
        text: str = node.value
        try:
            return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))
        except ValueError as error:  # Python's limit of digits
            raise ConfigError(
                f"{self._line(node)}: {where}: a number of {len(text)} digits; write a shorter one"
            ) from error

    def _finite(self, node: yaml.ScalarNode, where: str) -> float:
        number = float(node.value.lower().replace(".inf", "inf").replace(".nan", "nan"))
        if not math.isfinite(number):
            raise ConfigError(
                f"{self._line(node)}: {where}: {number} is not a finite number; write a finite one"
            )
        return number

    def _checked(self, node: yaml.ScalarNode, where: str) -> str:
        text: str = node.value
        if node.style in ("|", ">") and text.endswith("\n"):
            raise ConfigError(
                f"{self._line(node)}: {where}: ends with a line end, as | and > keep it; write |- or >-, "
                "or the text between double quotes with \\n if it is meant"
            )
        if node.style is None:
            self._check_ends(node, where)
        for character, written in _ESCAPES.items():
            if character in text:
                raise ConfigError(
                    f"{self._line(node)}: {where}: between double quotes \\{written} is the character "
                    f"{character!a}; use single quotes, or write \\\\{written}"
                )
        return text

    def _check_ends(self, node: yaml.ScalarNode, where: str) -> None:
        """Check that a text that stands between no quotation marks is meant as it stands."""
        text: str = node.value
        if (text[0], text[-1]) in _TYPOGRAPHIC:
            raise ConfigError(
                f"{self._line(node)}: {where}: the quotation marks of {text} are a part of the text, as "
                "programs for writing set them; write straight quotation marks"
            )
        if {unicodedata.category(text[0]), unicodedata.category(text[-1])} & _UNSEEN:
            raise ConfigError(
                f"{self._line(node)}: {where}: {text!a} begins or ends with a character that cannot be "
                "seen; remove it, or put the text between straight quotation marks if it is meant"
            )
