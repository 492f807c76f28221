"""The config of a study of one's own run: written with the source of every value, and its preview.

Imports PyYAML only.
"""

import copy
import csv
import datetime
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from sft_interactions import config_file
from sft_interactions.models.checkpoint_files import chat_template_of, read_json
from sft_interactions.orphans import PARTIAL
from sft_interactions.own_run.heldout import HeldOut, find_name, read_heldout
from sft_interactions.own_run.trainer_output import (
    TrainerOutput,
    find_base,
    read_output,
    without_router_loss,
)
from sft_interactions.own_run.trainers import (
    LLAMA_FACTORY,
    TRL,
    check_earlier_answers,
    check_llama_factory,
    check_texts,
)
from sft_interactions.own_run.training_args import values_of

_T = TypeVar("_T")

# What the command line may give, with what it means.
KEYS = {
    "output": "the trainer's output folder",
    "heldout": "a file of prompts and responses that the model was not trained on",
    "base": "the model before SFT, a folder or ORG/NAME, where the checkpoints do not name it",
    "template": "a file with the chat template of the training in Jinja, or plain, chat or concatenate",
    "name": "what the study is called; by default the name of the output folder",
    "prompt": "column of the prompt",
    "target": "column of the response",
    "turns": "column of conversations",
    "system": "column of what the system is told",
    "samples": "how many prompts the full analysis takes",
    "words": "how many words of each prompt the full analysis masks, 8 by default",
    "losses": "trainer (its eval_loss, where there is one) or measured (of held-out responses, here)",
    "template_date": "date of the training, as 2026-01-31, where the chat template writes today's",
}
# Of a template in which the response follows the prompt, as TRL joins prompt and completion. Where a
# tokenizer begins every text with a token, that one is written too.
CONCATENATE = (
    "{{{{ text_begin }}}}{{{{ messages[0]['content'] }}}}{{% if messages | length > 1 %}}"
    "{{{{ {between} }}}}{{{{ messages[1]['content'] }}}}{{{{ eos_token }}}}{{% endif %}}"
)
SAMPLES, PLAYERS = 16, 8
FEWEST_PLAYERS, MOST_PLAYERS = 2, 16  # of the config key players.n
PREVIEW_SAMPLES, PREVIEW_PLAYERS, PREVIEW_CHECKPOINTS = 8, 6, 3
# Responses whose loss is measured beside those of the analysed prompts, where the trainer has no losses.
LOSS_SAMPLES, PREVIEW_LOSS_SAMPLES = 100, 24
TRAINER, MEASURED = "trainer", "measured"
SEAL = "# unchanged: "


def _missing(key: str) -> str:
    return f"--config: {key}= is missing; add {KEYS[key]}"


# What the command is answered with where it names no run.
ASKED = _missing("output")


@dataclass(frozen=True)
class OwnStudy:
    """A study of one's own run.

    Attributes:
        file: its config.
        content: what that says.
        preview: the config of its preview: fewer prompts, words and checkpoints, in a folder of its own.
        places: where each key stands, see :func:`sft_interactions.config_file.read`.
        told: what was understood, a line each.
    """

    file: Path
    content: dict[str, Any]
    preview: dict[str, Any]
    places: dict[str, str]
    told: list[str] = field(default_factory=list)

    @property
    def skipped(self) -> list[int]:
        """Steps that the preview leaves out."""
        of_all, of_preview = (_steps_in(config) for config in (self.content, self.preview))
        return sorted(of_all - of_preview)


def is_asked(given: Mapping[str, Any]) -> bool:
    """Whether the values of ``--config`` are those of an own run, of which one may have been forgotten."""
    return "output" in given or "heldout" in given


def has_written(files: Iterable[str | Path]) -> bool:
    """Whether a config is one that was written here, be it changed by hand since."""
    return any(
        Path(file).is_file() and Path(file).read_bytes().startswith(SEAL.encode()) for file in files
    )


def prepare(given: Mapping[str, Any], folder: Path, *, may_write: bool) -> OwnStudy:
    """The config of a study of one's own run.

    It is written where there is none, and anew where nobody has changed it: so new checkpoints are picked
    up.

    Args:
        given: values of ``KEYS``, as the command line has them.
        folder: where configs are written.
        may_write: whether this process writes; jobs of a running study only read.

    Raises:
        ValueError: something cannot be understood, or must be asked for.
    """
    unknown = [key for key in given if key not in KEYS]
    if unknown:
        raise ValueError(
            f"--config: {unknown[0]} is not for the study of an own run; known are {', '.join(KEYS)}"
        )
    missing = [_missing(key) for key in ("output", "heldout") if not given.get(key)]
    if missing:
        raise ValueError("\n".join(missing))
    given = {key: str(value) for key, value in given.items()}
    output = Path(given["output"]).resolve()
    name = _safe(given.get("name", output.name))
    file = folder / f"{name}.yaml"
    told = []
    if may_write:
        told = _write(file, given, output, name)
    elif not file.is_file():
        raise ValueError(f"{file}: is not there any more; start again")
    content, places = config_file.read([file])
    try:
        preview = _preview_of(content)
    except (AttributeError, KeyError, TypeError, ValueError):
        # Somebody has changed it into what is no config; that is told, with the line, where it is resolved.
        preview = content
    return OwnStudy(file, content, preview, places, told)


def inference_seconds(folder: str | Path, config: Mapping[str, Any]) -> float:
    """What the masked inference of a study has taken, by the run times that Snakemake has noted.

    Args:
        folder: with those times. Jobs of earlier checkpoints of the same study may have left some.
        config: of the study.
    """
    seconds = 0.0
    steps = {str(step) for step in _steps_in(config)}
    for file in Path(folder).rglob("from-step-*-shard-*.tsv"):
        if file.name.split("-")[2] not in steps:
            continue
        with file.open(encoding="utf-8", newline="") as lines:
            seconds += sum(float(row["s"]) for row in csv.DictReader(lines, delimiter="\t"))
    return seconds


def what_next(study: OwnStudy, seconds: float, cores: int) -> str:
    """What to do after the preview, in a few lines.

    Args:
        study: of which the preview has been made.
        seconds: what its masked inference took.
        cores: that were given to it.
    """
    small, full = _positions_in(study.preview), _positions_in(study.content)
    minutes = seconds * full / small / 60
    time = f"{minutes / 60:.1f} hours" if minutes >= 60 else f"{minutes:.0f} minutes"
    time = "a minute" if minutes < 1.5 else time
    few, many = _responses_in(study.preview), _responses_in(study.content)
    losses = (
        f"The full analysis measures the loss of up to {many} held-out responses, and the preview did of "
        f"up to {few}: more tell more checkpoints apart. "
    )
    return (
        f"This was the preview: {len(_steps_in(study.preview))} checkpoints, "
        f"{study.preview['players']['n']} masked words. It cannot tell stages. "
        f"{losses if many > few else ''}See that the prompts in "
        f"{study.preview['results']}/verdict.md are written as in the training, then run the full "
        f"analysis (its masked inference takes about {time} on the same device, the rest comes on top):\n"
        f"    snakemake --cores {cores} --configfile {study.file}\n"
        "For its verdict alone, without figures and without the findings under other choices:\n"
        f"    snakemake verdict --cores {cores} --configfile {study.file}"
    )


def _responses_in(config: Mapping[str, Any]) -> int:
    """Up to how many responses the loss is measured of; 0 where that of the trainer is taken."""
    if any("validation_losses" in run for run in config["runs"].values()):
        return 0
    datasets = config["datasets"].values()
    tests = [dataset.get("test") for dataset in datasets]
    further = sum(int(test.get("at_most", 0)) for test in tests if isinstance(test, Mapping))
    return further + sum(int(dataset["analysis"]) for dataset in datasets)


def _steps_in(config: Mapping[str, Any]) -> set[int]:
    return {step for step, _ in _checkpoints_in(config)}


def _checkpoints_in(config: Mapping[str, Any]) -> list[tuple[int, str]]:
    """Steps and folders; of a config that was changed by hand those that can be understood."""
    runs = config.get("runs")
    of_runs = runs.values() if isinstance(runs, Mapping) else ()
    blocks = [run.get("checkpoints") for run in of_runs if isinstance(run, Mapping)]
    return [
        (int(step), folder)
        for block in blocks
        if isinstance(block, Mapping)
        for step, folder in block.items()
        if step.isdecimal() and isinstance(folder, str)
    ]


def _positions_in(config: Mapping[str, Any]) -> float:
    """What the masked inference of a study costs, up to a factor: token positions of the prefix tree.

    A prompt of L tokens with n players evenly spread has L / (n + 1) · (2^(n + 1) − 1) of them.
    """
    n = config["players"]["n"]
    prompts = sum(dataset["analysis"] for dataset in config["datasets"].values())
    return float(prompts * len(_steps_in(config)) * (2 ** (n + 1) - 1) / (n + 1))


def _safe(name: str) -> str:
    safe = re.sub(r"[^a-z0-9._]+", "_", name.lower()).strip("._")
    return safe or "own"


def _write(file: Path, given: Mapping[str, str], output: Path, name: str) -> list[str]:
    """Write the config, unless it was changed by hand; what was understood, a line each."""
    found = read_output(output)
    # Not where a link leads to, since the name tells what the file is.
    heldout = Path(given["heldout"]).absolute()
    asked: list[str] = []
    base = _or_asked(asked, find_base, found, given.get("base"))
    data = _or_asked(asked, read_heldout, heldout, given)
    # Without a tokenizer of the training the template is that of the base.
    if data is None or (base is None and found.tokenizer is None):
        raise ValueError("\n".join(asked))
    source = "" if base is None else base[0]
    template = _or_asked(asked, _template_of, file, given, source, found, data)
    if base is None or template is None:
        raise ValueError("\n".join(asked))
    found = without_router_loss(found, source)
    tokenizer = _tokenizer_of(found, source)
    _check_names(heldout, data, tokenizer)
    _check_owner(file, output)
    text = _text_of(given, name, found, base, template, heldout, data)
    told = [f"{output}: {len(found.checkpoints)} checkpoints, steps {_listed(found.checkpoints)}"]
    told += [f"base model: {base[0]} ({base[1]})"]
    told += [f"template: {template[0]} ({template[1]})"]
    told += [f"{heldout}: {data.n_rows or 'unknown'} rows; {data.why}", *found.notes]
    told += [_told_losses(found, given)]
    told += _notes_on(heldout, data, given, found.trainer)
    if file.is_file() and not _is_unchanged(file):
        there, _ = config_file.read([file])
        missing = found.checkpoints.keys() - _steps_in(there)
        told.append(f"{file} was changed by hand and is used as it is")
        unread = [key for key in given if key not in ("output", "name")]
        told.append(
            f"what it has counts, and not {', '.join(f'{key}={given[key]}' for key in unread)}; change it "
            "there, or delete the file to have it written anew"
        )
        if missing:
            told.append(f"it lacks the checkpoints {_listed(missing)} of {output}; add them there")
        return told
    file.parent.mkdir(parents=True, exist_ok=True)
    for path, content in {**_templates_of(file, given, data), file: text}.items():
        if not path.is_file() or path.read_text("utf-8") != content:
            temporary = path.with_name(f"{PARTIAL}{path.name}")
            temporary.write_text(content, "utf-8")
            temporary.replace(path)
    told.append(f"written: {file}")
    return told


def _check_owner(file: Path, output: Path) -> None:
    """Check that a config which is there is of this run, and not of another of the same name.

    Raises:
        ValueError: none of its checkpoints lies in the output folder.
    """
    if not file.is_file():
        return
    content, _ = config_file.read([file])
    folders = [Path(folder) for _, folder in _checkpoints_in(content) if folder != "base"]
    # A checkpoint may be a link to where it lies.
    places = [place for folder in folders for place in (folder.resolve(), folder.absolute())]
    if folders and not any(place.is_relative_to(output) for place in places):
        raise ValueError(
            f"name: {file} is the study of another run ({folders[-1].parent}); add name= with another name "
            "to --config, or delete that file if its run has been moved"
        )


def _or_asked(asked: list[str], question: Callable[..., _T], *args: Any) -> _T | None:
    """The answer to a question, or None, with what the user is asked for added to ``asked``."""
    try:
        return question(*args)
    except ValueError as error:
        asked.append(str(error))
        return None


def _told_losses(found: TrainerOutput, given: Mapping[str, str]) -> str:
    """Whose losses the checkpoint is chosen by."""
    if not found.losses:
        return (
            "validation loss: the trainer has noted none that counts; that of held-out responses is "
            "measured here"
        )
    best = min(found.losses, key=lambda step: found.losses[step])
    lowest = f"lowest at step {best}, {found.losses[best]:.3f}, by {found.losses_from}"
    if _takes_losses(found, given):
        return (
            f"validation loss: eval_loss of the trainer ({lowest}); losses=measured takes that of held-out "
            "responses in its place"
        )
    if given.get("losses") == MEASURED:
        return f"validation loss: measured here, as asked; eval_loss of the trainer is {lowest}"
    return (
        f"validation loss: measured here, since that of the trainer is known of {found.n_evaluated} of "
        f"{len(found.checkpoints)} checkpoints alone ({lowest}); losses={TRAINER} takes it all the same"
    )


def _takes_losses(found: TrainerOutput, given: Mapping[str, str]) -> bool:
    """Whether the losses of the trainer are taken: by itself, where it has evaluated most checkpoints.

    Raises:
        ValueError: ``losses`` is none of the two words, or asks for losses that are not there.
    """
    asked = given.get("losses")
    if asked not in (None, TRAINER, MEASURED):
        raise ValueError(f"losses: {asked} is neither {TRAINER} nor {MEASURED}; correct it")
    if asked == TRAINER and not found.losses:
        raise ValueError(
            f"losses: no trainer_state.json in {found.folder} has an eval_loss that counts; drop "
            f"losses={TRAINER}"
        )
    is_usual = 2 * found.n_evaluated >= len(found.checkpoints)
    return bool(found.losses) and (asked == TRAINER or (asked is None and is_usual))


def _notes_on(
    heldout: Path, data: HeldOut, given: Mapping[str, str], trainer: str | None
) -> list[str]:
    """What the user must see to, since it cannot be seen here."""
    notes = []
    if data.n_rows is None:
        notes.append(
            f"{heldout} is not looked into: see that no prompt or response begins or ends with blanks, "
            "which are dropped, that none holds a special token of the tokenizer, which would be read as "
            "text, and that no column holds tools or earlier turns; what the system is told is read if "
            "system=COLUMN names its column"
        )
    if data.unread:
        names = ", ".join(" ".join(name.split()) or repr(name) for name in data.unread)
        is_one = len(data.unread) == 1
        notes.append(
            f"the column{'' if is_one else 's'} {names} of {heldout} {'is' if is_one else 'are'} not read"
        )
    if data.joins and trainer != LLAMA_FACTORY:
        notes.append(
            f"the columns {', '.join(data.columns['prompt'])} are joined by an empty line, which is a "
            "guess; if the training joined them otherwise, correct separator in the config"
        )
    if "turns" not in data.columns and "template" not in given:
        notes.append(
            "rows of text are written by the chat template; if the training joined prompt and response as "
            "they stand, add template=concatenate to --config"
        )
    return notes


def _listed(steps: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(steps)))


def _digest(body: str) -> str:
    return hashlib.sha256(body.encode()).hexdigest()[:16]


def _is_unchanged(file: Path) -> bool:
    first, _, body = file.read_text("utf-8").partition("\n")
    return first == SEAL + _digest(body)


def _template_of(
    file: Path, given: Mapping[str, str], source: str, found: TrainerOutput, data: HeldOut
) -> tuple[str, str]:
    """Value of ``template`` and where it comes from; ``source`` is that of the base."""
    asked = given.get("template")
    if asked == "concatenate":
        return f"path:{_template_file(file)}", "given as template: the response follows the prompt"
    if asked == "chat" and found.tokenizer is not None and not found.has_template:
        raise ValueError(
            f"template: no chat template was saved in {found.tokenizer}; add template=FILE.jinja with that "
            "of the training to --config in place of chat"
        )
    if asked in ("chat", "plain"):
        return asked, "given as template"
    if asked is not None:
        if not Path(asked).is_file():
            raise ValueError(
                f"template: there is no file {asked}; name a file in Jinja, or plain, chat or concatenate"
            )
        return f"path:{Path(asked).resolve()}", "given as template"
    if found.has_template and found.tokenizer is not None:
        _check_template_was_used(found, found.tokenizer, data)
        return "chat", f"the chat template in {found.tokenizer}"
    if found.tokenizer is None and source.startswith("path:"):
        base = Path(source.removeprefix("path:"))
        if base.is_dir() and chat_template_of(base) is not None:
            _check_template_was_used(found, base, data)
            return "chat", f"the chat template in {base}, since the trainer has saved no tokenizer"
    texts = ""
    if data.between is not None:
        texts = (
            "; if prompt and response were joined as they stand, as TRL does without a chat template, add "
            "template=concatenate"
        )
    where = found.tokenizer or "the checkpoints"
    raise ValueError(
        f"template: no chat template was saved in {where}, so how a prompt was written in training is not "
        f"known; add template=FILE.jinja with it to --config{texts}"
    )


def _check_template_was_used(found: TrainerOutput, tokenizer: Path, data: HeldOut) -> None:
    """Check that the trainer has written rows of this form by the chat template that it saved."""
    output, folders = found.folder, (*found.checkpoints.values(), found.folder)
    if found.trainer == LLAMA_FACTORY:
        check_llama_factory(tokenizer, output)
    elif "turns" not in data.columns:
        check_texts(found.trainer, output)
    elif (
        found.trainer == TRL
        and data.answered_before is not None
        and values_of("assistant_only_loss", folders) != {False}
    ):
        check_earlier_answers(tokenizer, output, data.answered_before)


def _tokenizer_of(found: TrainerOutput, source: str) -> Path | None:
    """Folder of the tokenizer: that of the training, or of a base that is here; else None."""
    base = Path(source.removeprefix("path:"))
    is_here = source.startswith("path:") and (base / "tokenizer.json").is_file()
    return found.tokenizer or (base if is_here else None)


def _check_names(heldout: Path, data: HeldOut, tokenizer: Path | None) -> None:
    """Refuse texts with the name of a special token, which the trainer has fed as that token."""
    if tokenizer is None:
        return
    added = read_json(tokenizer / "tokenizer.json").get("added_tokens") or []
    names = [token["content"] for token in added if token.get("special") and token.get("content")]
    held = find_name(heldout, data.columns, names)
    if held is not None:
        raise ValueError(
            f"heldout: {heldout}: row {held[0]}: holds {held[1]!r}, a special token of the tokenizer in "
            f"{tokenizer}, which is text here and was one token in training; leave such rows out"
        )


def _date_of(template: str, tokenizer: Path | None, given: Mapping[str, str]) -> str | None:
    """The date that prompts are written with; None where the template writes none, or is not here.

    Raises:
        ValueError: it is not given, or is no date.
    """
    written = ""
    if template == "chat" and tokenizer is not None:
        written = chat_template_of(tokenizer) or ""
    elif template.startswith("path:"):
        file = Path(template.removeprefix("path:"))
        written = file.read_text("utf-8", "replace") if file.is_file() else ""
    date = given.get("template_date")
    if date is None:
        if "strftime_now" in written:
            raise ValueError(
                "template_date: the chat template writes today's date into the prompt; add "
                "template_date=YYYY-MM-DD with the date of the training to --config"
            )
        return None
    try:
        return datetime.date.fromisoformat(date).isoformat()
    except ValueError as error:
        raise ValueError(f"template_date: {date} is no date; write it as YYYY-MM-DD") from error


def _check_blanks(
    heldout: Path, given: Mapping[str, str], data: HeldOut, takes_losses: bool
) -> None:
    """Refuse blanks that are dropped here and that the trainer has fed to the model."""
    kept = {
        "concatenate": ("end", "response"),  # written between the two
        "plain": ("response",),  # one is always written there
    }.get(given.get("template", ""), ())
    if takes_losses:
        kept += ("last",)  # which no loss here has then, and no scored token
    places = {"start": "begins", "end": "ends", "response": "begins", "last": "ends"}
    for place, row in data.blank.items():
        if place not in kept:
            what = "response" if place in ("response", "last") else "prompt"
            raise ValueError(
                f"heldout: {heldout}: row {row}: its {what} {places[place]} with blanks, which are dropped "
                "here; write the file without them if the template of the training trims them, else leave "
                "such rows out"
            )


def _template_file(file: Path) -> Path:
    return file.with_suffix(".jinja").resolve()


def _templates_of(file: Path, given: Mapping[str, str], data: HeldOut) -> dict[Path, str]:
    """The file of a template that is written here, with its content."""
    if given.get("template") != "concatenate":
        return {}
    if data.between is None:
        raise ValueError(
            "template: concatenate needs texts with the same blanks between prompt and response in every "
            f"row of {given['heldout']}; add template=FILE.jinja with the template of the training instead"
        )
    return {_template_file(file): CONCATENATE.format(between=json.dumps(data.between))}


def _text_of(
    given: Mapping[str, str],
    name: str,
    found: TrainerOutput,
    base: tuple[str, str],
    template: tuple[str, str],
    heldout: Path,
    data: HeldOut,
) -> str:
    """The config as text, every line with the source of its value."""
    takes_losses = _takes_losses(found, given)
    _check_blanks(heldout, given, data, takes_losses)
    date = _date_of(template[0], _tokenizer_of(found, base[0]), given)
    model = _safe(base[0].partition(":")[2].partition("@")[0].rstrip("/").rpartition("/")[2])
    samples = given.get("samples")
    if samples is not None and not (samples.isdecimal() and int(samples) > 0):
        raise ValueError(f"samples: {samples} is no number of prompts; correct it")
    if samples and data.n_rows and int(samples) > data.n_rows:
        raise ValueError(
            f"samples: {samples}, but {heldout} has {data.n_rows} rows; lower samples, or add rows"
        )
    analysis = int(samples) if samples else min(SAMPLES, data.n_rows or SAMPLES)
    words = given.get("words", str(PLAYERS))
    if not (words.isdecimal() and FEWEST_PLAYERS <= int(words) <= MOST_PLAYERS):
        raise ValueError(
            f"words: {words} is no number from {FEWEST_PLAYERS} to {MOST_PLAYERS}; correct it"
        )
    lines = [
        f"# The study of {found.folder}, written by `snakemake own`. Behind each value stands where it "
        "comes from.",
        "# Change what is wrong: a file that was changed by hand is not written again.",
        f"results: {_quoted(f'results/{name}')}",
        "models:",
        f"  {model}:",
        f"    source: {_quoted(base[0])}  # {base[1]}",
    ]
    if found.tokenizer is not None:
        lines.append(
            f"    tokenizer: {_quoted(f'path:{found.tokenizer}')}  # of the first checkpoint that has "
            "one, for all steps"
        )
    lines += [
        f"    template: {_quoted(template[0])}  # {template[1]}",
        *([f"    template_date: {_quoted(date)}  # given as template_date"] if date else []),
        "datasets:",
        "  heldout:",
        f"    source: {_quoted(f'path:{heldout}')}  # given as heldout",
        *(f"    {key}: {_quoted(value)}  # {data.why}" for key, value in data.columns.items()),
    ]
    if data.joins and found.trainer == LLAMA_FACTORY:
        lines.append('    separator: "\\n"  # LLaMA-Factory joins instruction and input so')
    elif data.joins:
        lines.append(
            '    separator: "\\n\\n"  # a guess: how the training joined the columns is not noted'
        )
    lines += [
        f"    analysis: {analysis}  # "
        f"{'given as samples' if samples else 'a choice: more prompts, surer answers'}",
    ]
    if not takes_losses:
        lines.append(
            f"    test: {{ at_most: {LOSS_SAMPLES} }}  # a choice: further rows whose loss is measured"
        )
    lines += [
        "players:",
        f"  n: {words}  # {'given as words' if 'words' in given else 'a choice'}: masked words a prompt; "
        "one more doubles the time",
        "runs:",
        f"  {model}-{name}:",
        "    dataset: heldout",
        f"    label: {_quoted(name)}",
    ]
    if takes_losses:
        losses = ", ".join(f'"{step}": {loss!r}' for step, loss in sorted(found.losses.items()))
        lines.append(f"    validation_losses: {{{losses}}}  # eval_loss in {found.losses_from}")
    lines += ["    checkpoints:", "      0: base  # the model before SFT"]
    lines += [f"      {step}: {_quoted(str(folder))}" for step, folder in found.checkpoints.items()]
    body = "\n".join(lines) + "\n"
    return f"{SEAL}{_digest(body)}\n{body}"


def _quoted(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _preview_of(content: Mapping[str, Any]) -> dict[str, Any]:
    preview = copy.deepcopy(dict(content))
    preview["results"] = f"{content.get('results', 'results')}/preview"
    players = preview.setdefault("players", {})
    players["n"] = min(PREVIEW_PLAYERS, players.get("n", PLAYERS))
    for dataset in preview.get("datasets", {}).values():
        dataset["analysis"] = min(PREVIEW_SAMPLES, dataset.get("analysis", SAMPLES))
        if isinstance(dataset.get("test"), Mapping):
            at_most = dataset["test"].get("at_most", LOSS_SAMPLES)
            dataset["test"] = {"at_most": min(PREVIEW_LOSS_SAMPLES, at_most)}
    for run in preview.get("runs", {}).values():
        checkpoints = run.get("checkpoints", {})
        run["checkpoints"] = _spread(checkpoints)
        others = {
            step: checkpoints[step] for step in checkpoints.keys() - run["checkpoints"].keys()
        }
        if others and "validation_losses" not in run:
            run["loss_checkpoints"] = {**run.get("loss_checkpoints", {}), **others}
    return preview


def _spread(checkpoints: Mapping[str, str]) -> dict[str, str]:
    """Step 0 and some steps that are spread evenly over all, with the last one."""
    steps = sorted((step for step in checkpoints if step != "0"), key=int)
    n = min(PREVIEW_CHECKPOINTS, len(steps))
    chosen = [steps[round((k + 1) * len(steps) / n) - 1] for k in range(n)]
    return {step: checkpoints[step] for step in checkpoints if step == "0" or step in chosen}
