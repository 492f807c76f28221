"""The configuration of a study: schema, defaults, and checks across keys, before any job starts."""

import copy
import datetime
import difflib
import errno
import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator, validators
from jsonschema.exceptions import ValidationError

from sft_interactions.limits import MAX_PLAYERS_EXACT_FIT
from sft_interactions.models.checkpoint_files import (
    chat_template_of,
    check_added_tokens,
    check_checkpoint,
    check_model,
    check_own_tokenizer,
    check_template_file,
    check_tokenizer,
)

# Names of version 0.1 and those that have replaced them.
RENAMED_KEYS = {
    "masking_baseline": "mask_embedding",
    "masking_baselines": "mask_embeddings",
    "learned_baseline": "learned_mask_embedding",
    "baseline_token": "mask_token",
    "baseline_run": "reference_run",
    "baseline_checkpoint": "reference_checkpoint",
}
RENAMED_VALUES = {"output_range": "log_odds_difference"}

# What config_file.py calls the place of a value of --config.
_COMMAND_LINE = "--config"
# The start of a message on a number, true or false that came as text, in a key of a block.
_TEXT_IN_BRACES = re.compile(
    r'\w+[.\[][^:]*: "(?:[-+.\deE]+|true|false)" (?:must be of type (?:integer|number|boolean)|has none)'
)

# What is expected of a value, by the keyword of JSON Schema that it breaks; {} is the keyword's own value.
EXPECTED = {
    "type": "must be of type {}",
    "enum": "must be one of {}",
    "minimum": "must be at least {}",
    "maximum": "must be at most {}",
    "exclusiveMinimum": "must be greater than {}",
    "exclusiveMaximum": "must be less than {}",
    "minItems": "must have at least {} entries",
    "minProperties": "must have at least {} entries",
    "uniqueItems": "must not repeat an entry",
    "pattern": "must match {}",
    "oneOf": "has none of the allowed forms",
}

NOT_PERMITTED = (
    "may not be read (permission denied); ask its owner for `chmod -R a+rX` of it and of its folder, or "
    "name a copy"
)

# Folders of a checkout in which no study is written.
PROJECT_FOLDERS = (
    ".git",
    ".snakemake",
    "benchmarks",
    "config",
    "docs",
    "envs",
    "profiles",
    "tests",
    "workflow",
)

# JSON Schema takes 1.0 for an integer. As a seed it gives other draws than 1, as a step other file names.
_Validator = validators.extend(  # type: ignore[no-untyped-call]  # jsonschema's stubs lack its types
    Draft202012Validator,
    type_checker=Draft202012Validator.TYPE_CHECKER.redefine(
        "integer", lambda _, value: isinstance(value, int) and not isinstance(value, bool)
    ),
)


def find_schema(package: Path) -> Path:
    """Path of the config schema of a copy of this package.

    Args:
        package: folder of the package. In an installed copy the schema lies inside it, in a checkout
            beside it.

    Raises:
        FileNotFoundError: it is in neither place.
    """
    name = Path("schemas") / "config.schema.yaml"
    for folder in (package, package.parent):
        if (folder / name).is_file():
            return folder / name
    raise FileNotFoundError(f"{name} is neither in {package} nor in {package.parent}")


SCHEMA_PATH = find_schema(Path(__file__).parent)


class ConfigError(ValueError):
    """One or more errors in a config, one line each, with the key and a suggested fix."""


def find_place(places: Mapping[str, str], where: str) -> str | None:
    """Where a key stands, or else the innermost block around it whose place is known.

    Args:
        places: ``file, line 3`` by the key's path, as :func:`sft_interactions.config_file.read` gives them.
        where: path of a key, written as ``finetune.steps``.
    """
    while where:
        if where in places:
            return places[where]
        where = where.rpartition(".")[0]
    return None


def resolve(config: Mapping[str, Any], places: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Check a config and return it with every default filled in.

    Each run gets its ``model`` (from its name), its whole ``finetune`` block and its sorted
    ``steps``, the checkpoints that are analysed. A run with several seeds becomes as many runs, each
    with the name that they share as ``repeats``. ``only_runs`` names the runs to make, all by default.

    Args:
        places: where each key stands, for messages; see :func:`find_place`.

    Raises:
        ConfigError: the config breaks the schema, or names something that is not there or may not be read.
    """
    try:
        return _resolve(config)
    except PermissionError as error:
        raise ConfigError(f"{error.filename}: {NOT_PERMITTED}") from error
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        raise ConfigError(
            f"{_visible(error.filename)}: is too long for the name of a file; correct the path"
        ) from error
    except ConfigError as error:
        if not places:
            raise
        lines = str(error).splitlines()
        raise ConfigError("\n".join(_with_place(line, places) for line in lines)) from error


def _with_place(message: str, places: Mapping[str, str]) -> str:
    key = message.partition(":")[0]
    place = find_place(places, key)
    if place == _COMMAND_LINE and _TEXT_IN_BRACES.match(message):
        message += (
            "; within braces Snakemake takes numbers, true and false for text: write them into a second "
            "config file, and name it after the first one behind --configfile"
        )
    return f"{place}: {message}" if place else message


def _resolve(config: Mapping[str, Any]) -> dict[str, Any]:
    schema = _read_schema()
    given = json.loads(json.dumps(config, default=_date_as_text))
    endless = list(_not_finite(given, ""))
    if endless:
        raise ConfigError("\n".join(map(_visible, endless)))
    errors = list(_Validator(schema).iter_errors(given))
    if errors:
        raise ConfigError(
            "\n".join(sorted({_visible(line) for e in errors for line in _describe(e)}))
        )
    resolved = _fill_in_defaults(given, schema)
    problems = list(_cross_check(resolved))
    if problems:
        raise ConfigError("\n".join(map(_visible, problems)))
    runs = resolved["runs"]
    chosen = resolved.get("only_runs", list(runs))
    main = [name for name in resolved["figures"].get("main_runs", []) if name in chosen]
    main = main or _default_main_runs(chosen)
    resolved["figures"]["main_runs"] = [_first_seed(runs[name], name) for name in main]
    resolved["only_runs"] = [name for run in chosen for name in _seed_names(runs[run], run)]
    resolved["runs"] = dict(_each_seed(runs))
    for name, run in resolved["runs"].items():
        run["model"] = model_of(name)
        run.setdefault("seed", resolved["seed"])
        run["finetune"] = {**resolved["finetune"], **run.get("finetune", {})}
        own_checkpoints = run.get("checkpoints")
        run["steps"] = sorted(map(int, own_checkpoints or run["finetune"]["checkpoints"]))
    return resolved


def _visible(message: str) -> str:
    """A message with what would end its line, or cannot be seen, written as Python writes it."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in message)


def _not_finite(value: Any, where: str) -> Iterator[str]:
    """Numbers without an end, which a command line can give though no file can."""
    if isinstance(value, float) and not math.isfinite(value):
        yield f"{where}: {value} is not a finite number; write a finite one"
    block = dict(enumerate(value)) if isinstance(value, list) else value
    for key, part in block.items() if isinstance(block, dict) else ():
        yield from _not_finite(part, f"{where}.{key}" if where else str(key))


def _date_as_text(value: object) -> str:
    """A date that is not between quotation marks, which YAML does not take for text."""
    if isinstance(value, datetime.date):
        return value.isoformat()
    raise ConfigError(f"the config: {value!r} is neither text nor a number; correct it")


@cache
def _read_schema() -> Mapping[str, Any]:
    # The loader in C is several times as fast as that in Python; every call of Snakemake reads the schema.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    schema: Mapping[str, Any] = yaml.load(SCHEMA_PATH.read_text("utf-8"), loader)
    return schema


def _default_main_runs(chosen: list[str]) -> list[str]:
    """The first two runs, or the first of two, so that one is left for the other figures."""
    return chosen[:1] if len(chosen) == 2 else chosen[:2]


def _each_seed(runs: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, run in runs.items():
        run = dict(run)
        if "reference_run" in run:
            run["reference_run"] = _first_seed(runs[run["reference_run"]], run["reference_run"])
        seeds = run.pop("seeds", None)
        if seeds is None:
            yield name, run
            continue
        for seed in seeds:
            label = f"{run.get('label', name)}, seed {seed}"
            yield _seed_name(name, seed), {**run, "seed": seed, "label": label, "repeats": name}


def _seed_names(run: Mapping[str, Any], name: str) -> list[str]:
    return [_seed_name(name, seed) for seed in run["seeds"]] if "seeds" in run else [name]


def _first_seed(run: Mapping[str, Any], name: str) -> str:
    return _seed_names(run, name)[0]


def _seed_name(run: str, seed: int) -> str:
    return f"{run}-seed{seed}"


def model_of(run: str) -> str:
    """Model of a run, the first word of its name."""
    return run.partition("-")[0]


def digest(config: Mapping[str, Any]) -> str:
    """Digest of everything in a config that a run's tables depend on: not figures, nor where files and
    jobs go, nor which other runs are made.
    """
    apart = ("results", "downloads", "figures", "only_runs")
    kept = {key: value for key, value in config.items() if key not in apart}
    kept["inference"] = {
        key: value
        for key, value in config["inference"].items()
        if key not in ("checkpoints_per_job", "shards")
    }
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:16]


def _describe(error: ValidationError) -> Iterator[str]:
    where = ".".join(str(part) for part in error.absolute_path) or "the config"
    schema: Any = error.schema
    value: Any = error.instance
    limit: Any = error.validator_value
    if error.validator == "additionalProperties" and limit is False:
        yield from _describe_unknown_keys(where, value, list(schema.get("properties", {})))
        return
    if error.validator == "required":
        yield f"{where}: {error.message.replace(' is a required property', '')} is missing; add it"
        return
    if error.validator == "enum" and isinstance(value, str) and RENAMED_VALUES.get(value) in limit:
        yield f"{where}: {value} is now called {RENAMED_VALUES[value]}; rename it"
        return
    if value is None:
        yield f"{where}: nothing stands there; give it a value, or remove the key"
        return
    shown = json.dumps(value)
    shown = shown if len(shown) <= 60 else shown[:57] + "..."
    if "propertyNames" in error.schema_path:
        shown = f"the name {shown}"
    if isinstance(limit, list):
        limit = ", ".join(map(str, limit))
    known = EXPECTED.get(str(error.validator))
    expected = error.message if known is None else known.format(limit)
    if limit == "integer" and isinstance(value, float) and value.is_integer():
        expected += f"; write {int(value)}"
    if limit == "string" and isinstance(value, int | float) and not isinstance(value, bool):
        expected += f'; write "{value}", between quotation marks'
    if limit == "boolean":
        expected += ", true or false"
    about = str(schema.get("description", "")).strip()
    yield f"{where}: {shown} {expected}" + (f" ({about})" if about else "")


def _describe_unknown_keys(
    where: str, block: Mapping[str, Any], known: Sequence[str]
) -> Iterator[str]:
    for key in sorted(set(block) - set(known)):
        if RENAMED_KEYS.get(key) in known:
            yield f"{where}: the key {key} is now called {RENAMED_KEYS[key]}; rename it"
            continue
        near = difflib.get_close_matches(key, known, n=1)
        fix = f"did you mean {near[0]}?" if near else f"known keys: {', '.join(known)}"
        yield f"{where}: unknown key {key!r}; {fix}"


def _fill_in_defaults(config: dict[str, Any], schema: Mapping[str, Any]) -> dict[str, Any]:
    """The config with the schema's defaults; ``finetune`` blocks of runs are left as they are given.

    They are laid over the study's, whose values the defaults would hide.
    """
    own = {name: run.pop("finetune") for name, run in config["runs"].items() if "finetune" in run}
    filled: dict[str, Any] = _with_defaults(config, schema, schema)
    for name, finetune in own.items():
        filled["runs"][name]["finetune"] = finetune
    return filled


def _with_defaults(value: Any, schema: Mapping[str, Any], root: Mapping[str, Any]) -> Any:
    if "$ref" in schema:
        target = root["$defs"][schema["$ref"].rpartition("/")[2]]
        return _with_defaults(value, target, root)
    if not isinstance(value, dict):
        return value
    properties = schema.get("properties", {})
    filled = dict(value)
    for key, part in properties.items():
        if key not in filled and "default" in part:
            filled[key] = copy.deepcopy(part["default"])
    for key, item in filled.items():
        part = properties.get(key, schema.get("additionalProperties"))
        if isinstance(part, dict):
            filled[key] = _with_defaults(item, part, root)
    return filled


def _cross_check(config: Mapping[str, Any]) -> Iterator[str]:
    for group in ("models", "datasets"):
        for name, entry in config[group].items():
            yield from _check_source(f"{group}.{name}", entry)
    for name, model in config["models"].items():
        yield from _check_template_date(f"models.{name}.template_date", model["template_date"])
        yield from _check_model_source(f"models.{name}.source", model)
        yield from _check_own_reading(f"models.{name}", model)
    for name, dataset in config["datasets"].items():
        yield from _check_dataset(f"datasets.{name}", dataset)
        on_it = [run for run in config["runs"].values() if run["dataset"] == name]
        if dataset.get("label_noise") and on_it and all("checkpoints" in run for run in on_it):
            yield (
                f"datasets.{name}.label_noise: every run on it brings its own checkpoints, trained "
                "elsewhere on the responses as they were there; drop it"
            )
    yield from _check_players(config)
    for name, run in config["runs"].items():
        yield from _check_run(name, run, config)
    yield from _check_titles(config["runs"])
    yield from _check_resamples(config["bootstrap"])
    yield from _check_places(config)
    for key in ("results", "downloads"):
        yield from _check_folder(key, Path(config[key]))
    shards = config["inference"]["shards"]
    fewest = min(dataset["analysis"] for dataset in config["datasets"].values())
    if shards > fewest:
        yield f"inference.shards: {shards} shards for {fewest} samples of a data set; lower it"
    if config["inference"]["dtype"] == "tf32" and config["compute"]["device"] in ("cpu", "mps"):
        yield "inference.dtype: tf32 is a format of GPUs; set float32, or compute.device to cuda"
    if 0 in config["sensitivity"]["noise_ratio"] and config["players"]["n"] > MAX_PLAYERS_EXACT_FIT:
        yield (
            f"sensitivity.noise_ratio: 0 is possible with up to {MAX_PLAYERS_EXACT_FIT} players; set it "
            "without 0 or lower players.n"
        )
    yield from _check_selection(config["stability"]["selection"])
    if config["optima"]["reading"] == "joint" and config["salience"]["rule"] == "stable":
        yield (
            "optima.reading: joint has no shares, which the salience rule stable needs; choose single, "
            "or another salience.rule"
        )
    yield from _check_chosen_runs(config)
    for name in config["figures"].get("main_runs", []):
        if name not in config["runs"]:
            known = ", ".join(config["runs"])
            yield f"figures.main_runs: {name!r} is not in runs ({known}); name one of them"


def _check_titles(runs: Mapping[str, Any]) -> Iterator[str]:
    """Check that figures and tables can tell the runs apart, which they have by their titles."""
    seen: dict[str, str] = {}
    for name, run in runs.items():
        title = " ".join(run.get("label", name).split())
        first = seen.setdefault(title, name)
        if first != name:
            yield (
                f"runs.{name}.label: {title!r} is the title of {first!r} too, and figures would take the "
                "two for one; give each a label of its own"
            )


def _check_resamples(bootstrap: Mapping[str, Any]) -> Iterator[str]:
    """Check that there is a resample beyond each end of an interval, or none at all."""
    resamples, level = bootstrap["resamples"], bootstrap["level"]
    fewest = math.ceil(round(2 / (1 - level), 6))
    if 0 < resamples < fewest:
        yield (
            f"bootstrap.resamples: {resamples} are too few for intervals at the level {level}; set at "
            f"least {fewest}, or 0 for none"
        )


def _check_selection(selection: Mapping[str, Any]) -> Iterator[str]:
    for key in ("noise_ratios", "tie_breaks"):
        if selection["draws"] < len(selection[key]):
            yield (
                f"stability.selection.draws: {selection['draws']} draws do not have all "
                f"{len(selection[key])} {key}; raise it or list fewer"
            )


def _check_chosen_runs(config: Mapping[str, Any]) -> Iterator[str]:
    runs = config["runs"]
    chosen = config.get("only_runs", list(runs))
    for name in chosen:
        reference = runs.get(name, {}).get("reference_run")
        if name not in runs:
            yield f"only_runs: {name!r} is not in runs ({', '.join(runs)}); name one of them"
        elif reference in runs and reference not in chosen:
            yield f"only_runs: {name!r} needs its reference_run {reference!r}; add it"


def _check_source(where: str, entry: Mapping[str, Any]) -> Iterator[str]:
    scheme, _, rest = entry["source"].partition(":")
    if scheme == "pypi" and "pypi" not in entry:
        yield f"{where}.pypi: missing; a pypi: source needs the wheels and members to take"
    if scheme == "pypi" and "pypi" in entry and rest not in entry["pypi"]["wheels"]:
        yield f"{where}.pypi.wheels: {rest} of the source is not among the wheels; add it"
    if scheme != "pypi" and "pypi" in entry:
        yield f"{where}.pypi: only for a pypi: source; remove it or change source"
    if scheme != "hub" and "subset" in entry:
        yield f"{where}.subset: only for a hub: source; remove it or change source"
    if scheme == "path":
        yield from _check_braces(f"{where}.source", rest)
    if scheme == "path" and not Path(rest).exists():
        yield (
            f"{where}.source: {rest} does not exist; {_correction(rest)} (relative to the working "
            "directory)"
        )


def _check_braces(where: str, path: str) -> Iterator[str]:
    """Check that Snakemake takes a path for one; what stands between braces is a wildcard to it."""
    if ("{" in path or "}" in path) and "${" not in path:
        yield f"{where}: {path} has braces, which are wildcards to Snakemake; rename it, or name a link"


def _correction(path: str) -> str:
    """What to do about a path that is not there."""
    if path.startswith("~") or "$" in path:
        return "write the path itself, since neither ~ nor $VARIABLE is filled in"
    return "correct the path"


def _check_places(config: Mapping[str, Any]) -> Iterator[str]:
    """Check that nothing that is read lies in a folder that a rule makes, which is removed before."""
    results = Path(config["results"])
    made = [results / "models" / name for name in config["models"]]
    made += [results / "data" / name for name in config["datasets"]]
    for where, path in _given_paths(config):
        # A run may take the checkpoints of another one, but none of its own.
        own = results / "runs" / where.removeprefix("runs.").partition(".checkpoints.")[0]
        place = Path(path).resolve()
        if any(place.is_relative_to(folder.resolve()) for folder in (*made, own)):
            yield (
                f"{where}: {path} lies where this study writes (results is {config['results']}), and would "
                "be removed; move it, or name another results folder"
            )


def _check_folder(key: str, folder: Path) -> Iterator[str]:
    """Check that a folder can be written, and that nothing of the project lies in it."""
    broken = _broken_link(folder)
    if folder.is_file():
        yield f"{key}: {folder} is a file; name a folder"
    elif broken:
        yield (
            f"{key}: {broken} is a link to {broken.readlink()}, which is not there; make that folder "
            "again, or correct the link"
        )
    elif _is_of_the_project(folder):
        yield (
            f"{key}: {folder} is the project's own folder, or the root of the file system; name a folder "
            "of its own, as results/mine"
        )


def _broken_link(folder: Path) -> Path | None:
    """The link on the way to a folder that leads nowhere, if there is one."""
    for place in (folder, *folder.parents):
        if place.is_symlink() and not place.exists():
            return place
    return None


def _is_of_the_project(folder: Path) -> bool:
    """Whether a folder is the root, that of the project, or one that came with the project."""
    place, project = folder.resolve(), SCHEMA_PATH.parents[2]
    kept = [project / name for name in PROJECT_FOLDERS]
    return place in (Path(place.anchor), project) or any(map(place.is_relative_to, kept))


def _given_paths(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Paths of what a study reads, each with its key."""
    texts = {
        f"{group}.{name}.source": entry["source"]
        for group in ("models", "datasets")
        for name, entry in config[group].items()
    }
    for name, model in config["models"].items():
        texts[f"models.{name}.template"] = model["template"]
        texts[f"models.{name}.tokenizer"] = model.get("tokenizer", "")
    texts["players.choice"] = config["players"]["choice"]
    for name, dataset in config["datasets"].items():
        names = dataset.get("target_names")
        if isinstance(names, str):
            texts[f"datasets.{name}.target_names"] = names
        if dataset["source"].startswith("path:"):
            for split, file in dataset.get("splits", {}).items():
                texts[f"datasets.{name}.splits.{split}"] = f"{dataset['source']}/{file}"
    for where, text in texts.items():
        if text.startswith("path:"):
            yield where, text.removeprefix("path:")
    for name, run in config["runs"].items():
        for key in ("checkpoints", "loss_checkpoints"):
            for step, folder in run.get(key, {}).items():
                if folder != "base":
                    yield f"runs.{name}.{key}.{step}", folder


def _check_template_date(where: str, text: str) -> Iterator[str]:
    try:
        datetime.date.fromisoformat(text)
    except ValueError:
        yield f"{where}: there is no day {text}; correct it"


def _model_folder(model: Mapping[str, Any]) -> str | None:
    """Folder that a model is taken from, if it is one on this machine."""
    scheme, _, path = model["source"].partition(":")
    return path if scheme == "path" and Path(path).is_dir() else None


def _check_model_source(where: str, model: Mapping[str, Any]) -> Iterator[str]:
    folder = _model_folder(model)
    if folder is not None:
        try:
            check_model(folder)
            check_own_tokenizer(folder, reads_template=model["template"] == "chat")
        except ValueError as error:
            yield f"{where}: {error}"


def _check_own_reading(where: str, model: Mapping[str, Any]) -> Iterator[str]:
    """Check the tokenizer and the chat template that a model is given in place of its own."""
    folder = _tokenizer_folder(model)
    if folder is not None and not (folder / "tokenizer.json").is_file():
        yield f"{where}.tokenizer: {folder} holds no tokenizer.json; name a folder that does"
    elif folder is not None:
        try:
            check_own_tokenizer(folder, reads_template=model["template"] == "chat")
        except ValueError as error:
            yield f"{where}.tokenizer: {error}"
    scheme, _, path = model["template"].partition(":")
    if scheme == "path" and not Path(path).is_file():
        yield f"{where}.template: there is no file {path}; {_correction(path)}"
        return
    if scheme == "path":
        try:
            check_template_file(Path(path))
        except ValueError as error:
            yield f"{where}.template: {error}"
            return
    if folder is not None and (folder / "tokenizer.json").is_file():
        yield from _check_embeddings(where, model, folder)


def _check_embeddings(where: str, model: Mapping[str, Any], tokenizer: Path) -> Iterator[str]:
    """Check that the model has what the template of another tokenizer writes."""
    base = _model_folder(model)
    scheme, _, path = model["template"].partition(":")
    try:
        template = (
            Path(path).read_text("utf-8") if scheme == "path" else chat_template_of(tokenizer)
        )
        if base and template and model["template"] != "plain":
            check_added_tokens(tokenizer, Path(base), template)
    except (ValueError, UnicodeDecodeError) as error:
        yield f"{where}.tokenizer: {error}"


def _tokenizer_folder(model: Mapping[str, Any]) -> Path | None:
    path = model.get("tokenizer")
    return None if path is None else Path(path.removeprefix("path:"))


def _check_dataset(where: str, dataset: Mapping[str, Any]) -> Iterator[str]:
    scheme, _, rest = dataset["source"].partition(":")
    names = dataset.get("target_names")
    if isinstance(names, str) and names.startswith("path:") and not Path(names[5:]).is_file():
        yield f"{where}.target_names: {names[5:]} does not exist; {_correction(names[5:])}"
    if names == "features" and scheme == "pypi":
        yield f"{where}.target_names: a pypi: source carries no features; list the names"
    if scheme == "path" and "splits" in dataset and Path(rest).is_dir():
        saved = any(Path(rest).glob("*/dataset_info.json"))
        for split, file in dataset["splits"].items():
            yield from _check_braces(f"{where}.splits.{split}", file)
            if not saved and not (Path(rest) / file).exists():
                yield f"{where}.splits.{split}: {Path(rest) / file} does not exist; {_split_fix(file)}"
    if "splits" in dataset and ("test" in dataset) != ("test" in dataset["splits"]):
        missing = "test" if "test" in dataset["splits"] else "splits.test"
        yield f"{where}.{missing}: missing; a test split needs test and splits.test"
    yield from _check_columns(where, dataset)
    if ("train" in dataset) != ("validation" in dataset):
        missing = "validation" if "train" in dataset else "train"
        yield f"{where}.{missing}: missing; set both train and validation, or neither"
    if "train" not in dataset and "label_noise" in dataset:
        yield f"{where}.label_noise: only training samples get it; drop it, or set train and validation"
    for split in ("train", "validation"):
        if "splits" in dataset and split in dataset and split not in dataset["splits"]:
            yield f"{where}.splits.{split}: missing; name the split or file, or drop {where}.{split}"
    if dataset.get("train") == "all" and dataset["balance"]:
        yield f"{where}.train: all cannot be balanced; give a number or drop balance"
    if dataset["instruction"].count("{prompt}") > 1:
        yield f"{where}.instruction: {{prompt}} stands there more than once; write {{prompt}} once"
    for key in ("separator", "target_separator"):
        if re.search(r"\\[nt]", dataset.get(key, "")):
            yield (
                f"{where}.{key}: has a line end or a tab as two characters ({dataset[key]}); write it "
                "between double quotation marks"
            )
    limits = dataset["filter"]
    try:
        re.compile(limits.get("exclude_pattern", ""))
    except re.error as error:
        yield f"{where}.filter.exclude_pattern: no regular expression ({error}); correct it"
    if limits.get("min_words", 1) > limits.get("max_words", float("inf")):
        yield f"{where}.filter: min_words is greater than max_words; swap them"


def _check_columns(where: str, dataset: Mapping[str, Any]) -> Iterator[str]:
    """Check that a data set names the columns of prompt and response, or that of conversations."""
    if "turns" in dataset:
        for key in ("prompt", "target", "target_names", "target_separator"):
            if key in dataset:
                yield f"{where}.{key}: turns hold prompt and response; drop one of the two keys"
        return
    for key in ("prompt", "target"):
        if key not in dataset:
            yield f"{where}.{key}: missing; name its column, or that of conversations under turns"
    prompt = dataset.get("prompt", [])
    columns = [prompt] if isinstance(prompt, str) else prompt
    # By default an empty line.
    if dataset["separator"] != "\n\n" and len(columns) == 1:
        yield (
            f"{where}.separator: it joins columns of the prompt, and there is one; drop it, or name the "
            "others under prompt"
        )
    for key in ("target", "system"):
        if key in dataset and dataset[key] in columns:
            yield f"{where}.{key}: {dataset[key]!r} is a column of the prompt too; name another one"


def _split_fix(file: str) -> str:
    """What to do about a file of a split that is not there."""
    if "*" in file or "?" in file:
        return "a split is one file, so join those of the pattern into one"
    if "[" in file or "+" in file:
        return "a split is one file; to divide one table, leave out splits"
    return "correct it"


def _check_players(config: Mapping[str, Any]) -> Iterator[str]:
    players = config["players"]
    scheme, _, path = players["choice"].partition(":")
    if scheme == "path":
        yield from _check_braces("players.choice", path)
    if scheme == "path" and not Path(path).is_file():
        yield f"players.choice: {path} does not exist; {_correction(path)}"
    if scheme == "path" and players["unit"] != "word":
        yield f"players.unit: {players['unit']} is not for a file of players; drop it"
    for name, run in config["runs"].items():
        if players["unit"] == "token" and "reference_run" in run:
            yield (
                f"runs.{name}.reference_run: the tokens of two models differ, so that their players do; "
                "drop it or set players.unit: word"
            )


def _check_run(name: str, run: Mapping[str, Any], config: Mapping[str, Any]) -> Iterator[str]:
    where = f"runs.{name}"
    models, datasets, runs = config["models"], config["datasets"], config["runs"]
    if model_of(name) not in models:
        yield (
            f"{where}: a run's name starts with its model's name and a hyphen, but {model_of(name)!r} "
            f"is not in models ({', '.join(models)}); rename it, or add that model"
        )
    if run["dataset"] not in datasets:
        known = ", ".join(datasets)
        yield f"{where}.dataset: {run['dataset']!r} is not in datasets ({known}); name one of them"
    if "seeds" in run:
        yield from _check_seeds(where, name, run, runs)
    reference = run.get("reference_run")
    if reference is None and run["reference_checkpoint"] != "first":
        yield f"{where}.reference_checkpoint: there is no reference_run; name one or drop this"
    if reference is not None:
        if reference not in runs:
            known = ", ".join(runs)
            yield f"{where}.reference_run: {reference!r} is not in runs ({known}); name one of them"
        elif model_of(reference) == model_of(name):
            yield f"{where}.reference_run: {reference!r} has the same model; name a run of another one"
        elif run["reference_checkpoint"] == "first" and is_same_model(
            models.get(model_of(reference)), models.get(model_of(name))
        ):
            yield (
                f"{where}.reference_run: the model of {reference!r} is the same under another name, and "
                "has all its interactions; name a run of another one"
            )
        elif runs[reference]["dataset"] != run["dataset"]:
            yield (
                f"{where}.reference_run: {reference!r} is on another data set, and both must share "
                f"samples; name one on {run['dataset']!r}"
            )
    if "validation_losses" in run and "checkpoints" not in run:
        yield f"{where}.validation_losses: this run is fine-tuned here, and its loss measured; drop it"
    if "loss_checkpoints" in run:
        yield from _check_loss_checkpoints(where, run, models.get(model_of(name)))
    if "checkpoints" in run:
        yield from _check_own_checkpoints(where, run, models.get(model_of(name)))
    else:
        yield from _check_schedule(where, {**config["finetune"], **run.get("finetune", {})})
        if run["dataset"] in datasets and "train" not in datasets[run["dataset"]]:
            yield (
                f"datasets.{run['dataset']}.train: missing; {where} is fine-tuned here, so set train and "
                "validation"
            )


def is_same_model(one: Mapping[str, Any] | None, other: Mapping[str, Any] | None) -> bool:
    """Whether two models are from one source and read prompts alike, whatever they are called."""

    def apart_from_names(model: Mapping[str, Any]) -> dict[str, Any]:
        scheme, _, path = model["source"].partition(":")
        source = Path(path).resolve() if scheme == "path" else model["source"]
        return {**{key: model[key] for key in model if key != "label"}, "source": source}

    if one is None or other is None:
        return False
    return apart_from_names(one) == apart_from_names(other)


def _check_seeds(
    where: str, name: str, run: Mapping[str, Any], runs: Mapping[str, Any]
) -> Iterator[str]:
    if "seed" in run:
        yield f"{where}.seeds: seed is set too; remove one of the two"
    if "checkpoints" in run:
        yield f"{where}.seeds: this run brings its own checkpoints; name a run for each seed instead"
    for seed in run["seeds"]:
        if _seed_name(name, seed) in runs:
            yield f"{where}.seeds: there is a run {_seed_name(name, seed)} already; rename it"


def _check_own_checkpoints(
    where: str, run: Mapping[str, Any], model: Mapping[str, Any] | None
) -> Iterator[str]:
    if "finetune" in run:
        yield f"{where}.finetune: this run brings its own checkpoints; remove one of the two"
    if "seed" in run:
        yield f"{where}.seed: this run brings its own checkpoints, and nothing is drawn for it; remove it"
    if "0" not in run["checkpoints"]:
        yield f"{where}.checkpoints: step 0 (before SFT) is missing; add `0: base`"
    for step, folder in run["checkpoints"].items():
        if folder == "base" and step != "0":
            yield f"{where}.checkpoints.{step}: base is the model before SFT, at step 0; name a folder"
        if folder != "base":
            yield from _check_own_checkpoint(f"{where}.checkpoints.{step}", folder, model)


def _check_own_checkpoint(
    where: str, folder: str, model: Mapping[str, Any] | None
) -> Iterator[str]:
    yield from _check_braces(where, folder)
    if not Path(folder).exists():
        yield f"{where}: {folder} does not exist; {_checkpoint_fix(folder)}"
        return
    if Path(folder).is_file():
        yield f"{where}: {folder} is a file; {_folder_fix(Path(folder))}"
        return
    base = _model_folder(model) if model else None
    try:
        check_checkpoint(folder, base)
        if model and base:
            tokenizer = _tokenizer_folder(model) or base
            check_tokenizer(folder, tokenizer, compare_template=model["template"] == "chat")
    except ValueError as error:
        yield f"{where}: {error}"


def _check_loss_checkpoints(
    where: str, run: Mapping[str, Any], model: Mapping[str, Any] | None
) -> Iterator[str]:
    where = f"{where}.loss_checkpoints"
    if "checkpoints" not in run:
        yield f"{where}: this run is fine-tuned here, and its losses measured; drop it"
        return
    if "validation_losses" in run:
        yield f"{where}: validation_losses gives the losses, so none is measured; drop one of the two"
    for step, folder in run["loss_checkpoints"].items():
        if step in run.get("checkpoints", {}):
            yield f"{where}.{step}: checkpoints has this step too; remove one of the two"
        yield from _check_own_checkpoint(f"{where}.{step}", folder, model)


def _checkpoint_fix(given: str) -> str:
    """What to do about a checkpoint that is not there: it is given as a folder, not as a source is."""
    scheme, _, rest = given.partition(":")
    if scheme == "path":
        return f"write the folder without path: before it, {rest}"
    if scheme == "hub" or re.fullmatch(r"[\w.-]+/[\w.-]+(@\w+)?", given):
        return "correct the path; of what is on the hub, download it and name its folder"
    return _correction(given)


def _folder_fix(file: Path) -> str:
    """What to do about a file in place of its folder, which may be of another program."""
    if file.suffix in (".bin", ".json", ".safetensors"):
        return f"name its folder, {file.parent}"
    return "name a folder that holds an adapter of PEFT, or full weights as save_pretrained writes them"


def _check_schedule(where: str, finetune: Mapping[str, Any]) -> Iterator[str]:
    for key in ("steps", "checkpoints"):
        if key not in finetune:
            yield f"finetune.{key}: missing; set it for the study or for {where}"
    if "steps" not in finetune or "checkpoints" not in finetune:
        return
    if 0 not in finetune["checkpoints"]:
        yield f"{where}: finetune.checkpoints must contain 0 (before SFT); add it"
    late = [step for step in finetune["checkpoints"] if step > finetune["steps"]]
    if late:
        yield (
            f"{where}: finetune.checkpoints {late} lie beyond finetune.steps = {finetune['steps']}; "
            "raise steps or drop them"
        )
