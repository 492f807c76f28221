"""What a trainer has left in its output folder: checkpoints, base model, tokenizer, losses.

Read as transformers' Trainer writes it, and with it TRL, LLaMA-Factory, Axolotl and Unsloth. Weights are
not loaded. Imports PyYAML only.
"""

import math
import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

from sft_interactions.files import content_digest
from sft_interactions.models.checkpoint_files import (
    ADAPTER_WEIGHTS,
    FULL_WEIGHTS,
    chat_template_of,
    check_checkpoint,
    read_json,
    step_in_name,
    weight_files_of,
)
from sft_interactions.own_run.trainers import find_trainer, front_matter_of, read_tags
from sft_interactions.own_run.training_args import why_no_cross_entropy

# Names of bases that are quantised; what was trained on one is added to the weights before that.
_QUANTISED = re.compile(r"(4-?bit|8-?bit|int[48]|nf4|fp8|gptq|awq|gguf)", re.IGNORECASE)
_ON_THE_HUB = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")
# Settings of trainers that tell of a quantised base.
_QUANTISING = ("quantization_bit", "load_in_4bit", "load_in_8bit")
_SHOWN = 5
# Losses of one step that are nearer are one, measured twice.
_LEAST_DIFFERENCE = 0.001
# Settings of an adapter that stay the same in a run.
_OF_ONE_RUN = (
    "peft_type",
    "r",
    "lora_alpha",
    "use_rslora",
    "use_dora",
    "target_modules",
    "modules_to_save",
)
# Tags that TRL gives to the model cards of trainings whose loss is another one.
_NOT_CROSS_ENTROPY = frozenset(
    "gkd minillm gold dpo online-dpo orpo kto cpo bco xpo nash-md grpo rloo ppo prm reward-trainer".split()
)
# What trainers by preferences or rewards note beside their loss; and the loss of one of several data sets.
_OF_PREFERENCES = re.compile(r"(^|[_/])(rewards?|logps)([_/]|$)")
_OF_ONE_SET = re.compile(r"eval_.+_loss")


@dataclass(frozen=True)
class TrainerOutput:
    """What is to be read in an output folder.

    Attributes:
        folder: the output folder.
        checkpoints: step to folder, sorted, without the model before SFT.
        kind: of each, ``adapter`` or ``full``.
        tokenizer: folder of the tokenizer of the training; None if none was saved.
        has_template: whether that tokenizer has a chat template.
        losses: the trainer's own ``eval_loss`` by step.
        losses_from: the file with them; None if there is none.
        trainer: ``TRL`` or ``LLaMA-Factory``, where it is one of them.
        notes: what was seen and does not stop anything, a sentence each.
    """

    folder: Path
    checkpoints: dict[int, Path]
    kind: str
    tokenizer: Path | None
    has_template: bool
    losses: dict[int, float]
    losses_from: Path | None
    trainer: str | None
    notes: list[str] = field(default_factory=list)

    @property
    def n_evaluated(self) -> int:
        """Number of checkpoints whose loss the trainer has noted."""
        return len(self.checkpoints.keys() & self.losses.keys())


def read_output(output: Path) -> TrainerOutput:
    """Read the output folder of a trainer.

    Args:
        output: the folder with the ``checkpoint-...`` folders in it.

    Raises:
        ValueError: the folder has no checkpoints, or they are not whole or not of one run. The message says
            what to do.
    """
    folders = _find_checkpoints(output)
    kinds = {step: _kind_of(folder) for step, folder in folders.items()}
    if len(set(kinds.values())) > 1:
        one, other = (
            next(step for step in kinds if kinds[step] == kind) for kind in ("adapter", "full")
        )
        raise ValueError(
            f"output: {folders[one]} holds an adapter and {folders[other]} full weights, so that they "
            "are of two runs; move those of one run elsewhere"
        )
    states = {step: _state_of(step, folder) for step, folder in folders.items()}
    _check_one_run(folders, states)
    notes = _notes_on_order(folders, states)
    checkpoints = dict(folders)
    last = _read_last(output, folders, notes)
    if last is not None:
        checkpoints[last] = output
        states[last] = _state_of(last, output)
    notes += _notes_on_others(output, folders)
    tokenizer = next(
        (
            folder
            for folder in (*checkpoints.values(), output)
            if (folder / "tokenizer.json").is_file()
        ),
        None,
    )
    with_losses = max((step for step in states if states[step]), default=None)
    tags = read_tags(output, checkpoints.values())
    losses = {} if with_losses is None else _losses_in(states[with_losses])
    why = None
    if with_losses is not None:
        why = (
            _other_loss(states[with_losses], tags)
            or _router_loss(checkpoints[with_losses])
            or why_no_cross_entropy((*checkpoints.values(), output))
        )
    if with_losses is not None and why:
        losses = {}
        notes.append(f"the losses in {checkpoints[with_losses] / 'trainer_state.json'} {why}")
    return TrainerOutput(
        folder=output,
        checkpoints=checkpoints,
        kind=next(iter(kinds.values())),
        tokenizer=tokenizer,
        has_template=tokenizer is not None and chat_template_of(tokenizer) is not None,
        losses=losses,
        losses_from=checkpoints[with_losses] / "trainer_state.json"
        if losses and with_losses is not None
        else None,
        trainer=find_trainer(output, tags),
        notes=notes,
    )


def _find_checkpoints(output: Path) -> dict[int, Path]:
    if not output.is_dir():
        found = "is a file" if output.exists() else "does not exist"
        raise ValueError(
            f"output: {output} {found}; name the folder that the trainer wrote (output_dir)"
        )
    folders: dict[int, Path] = {}
    for folder in sorted(path for path in output.iterdir() if path.is_dir()):
        step = step_in_name(folder)
        if step is None:
            continue
        if step in folders:
            raise ValueError(
                f"output: {folders[step]} and {folder} are both of step {step}; move one elsewhere"
            )
        folders[step] = folder
    if 0 in folders:
        raise ValueError(
            f"output: {folders[0]} is of step 0, for which the model before SFT stands here; move it "
            "elsewhere (base= names another model before SFT)"
        )
    if folders:
        return dict(sorted(folders.items()))
    if step_in_name(output) is not None or _has_weights(output):
        raise ValueError(
            f"output: {output} is one checkpoint; name the folder that holds all of them, such as "
            f"{output.parent}, and let the trainer keep several (save_strategy, save_steps, "
            "save_total_limit)"
        )
    inside = ", ".join(sorted(path.name for path in output.iterdir())[:_SHOWN]) or "nothing"
    raise ValueError(
        f"output: {output} holds no folder checkpoint-STEP (it holds: {inside}); name the trainer's "
        "output_dir, or call its checkpoints so"
    )


def _has_weights(folder: Path) -> bool:
    return any((folder / name).is_file() for name in (*ADAPTER_WEIGHTS, *FULL_WEIGHTS))


def _notes_on_others(output: Path, folders: Mapping[int, Path]) -> list[str]:
    """Notes on folders with weights that are not named after a step, but for links to those that are."""
    known = {folder.resolve() for folder in folders.values()}
    return [
        f"{folder} holds weights and is of no known step; it is left out (call it checkpoint-STEP if it is "
        "one)"
        for folder in sorted(path for path in output.iterdir() if path.is_dir())
        if step_in_name(folder) is None
        and folder.resolve() not in known
        and os.access(folder, os.X_OK)
        and _has_weights(folder)
    ]


def _kind_of(folder: Path) -> str:
    try:
        return check_checkpoint(folder)
    except ValueError as error:
        raise ValueError(
            f"output: {error} (if the trainer is writing it just now, wait; else move it elsewhere)"
        ) from error


def _state_of(step: int, folder: Path) -> Mapping[str, Any]:
    """``trainer_state.json`` of a checkpoint; empty where it has none."""
    file = folder / "trainer_state.json"
    if not file.is_file():
        return {}
    state = read_json(file)
    if state.get("global_step") not in (None, step):
        raise ValueError(
            f"output: {folder} is named after step {step}, but global_step is {state['global_step']} in "
            f"{file.name}; give the folder its right name"
        )
    _check_history(file, state.get("log_history", []))
    return state


def _check_history(file: Path, history: Any) -> None:
    """Check that losses and their steps are noted as a trainer notes them."""
    seen: dict[int, float] = {}
    kinds: dict[str, Any] = {"step": int, "loss": int | float, "eval_loss": int | float}
    for number, entry in enumerate(history if isinstance(history, list) else [history], 1):
        if not isinstance(entry, dict):
            raise ValueError(
                f"output: {file}: entry {number} of log_history is no block of keys, as trainers write it; "
                "copy the file again, or delete it"
            )
        for key, kind in kinds.items():
            if key in entry and (isinstance(entry[key], bool) or not isinstance(entry[key], kind)):
                raise ValueError(
                    f"output: {file}: {key} is {entry[key]!r} in entry {number} of log_history, which is "
                    "no number that trainers write; copy the file again, or delete it"
                )
        _check_once(file, entry, seen)


def _check_once(file: Path, entry: Mapping[str, Any], seen: dict[int, float]) -> None:
    """Check that a step has one ``eval_loss``; those before are in ``seen``.

    A second one may be that of other data, or of the best weights, which a training loads when it ends.
    """
    if "eval_loss" not in entry or "step" not in entry:
        return
    first = seen.setdefault(entry["step"], entry["eval_loss"])
    if abs(first - entry["eval_loss"]) >= _LEAST_DIFFERENCE:
        raise ValueError(
            f"output: {file}: step {entry['step']} has two eval_loss in log_history, {first} and "
            f"{entry['eval_loss']}, as where a trainer evaluates other data too, or its best weights at "
            "the end; delete the entry that is not of the validation data and of that step"
        )


def _check_one_run(folders: Mapping[int, Path], states: Mapping[int, Mapping[str, Any]]) -> None:
    """Check that what each checkpoint has noted of the training is what the later ones have."""
    _check_settings(folders)
    known = [step for step in folders if states[step].get("log_history")]
    for earlier, later in pairwise(known):
        there: dict[tuple[Any, str], list[float]] = {}
        for entry in states[later]["log_history"]:
            for key in ("loss", "eval_loss"):
                if key in entry:
                    there.setdefault((entry.get("step"), key), []).append(entry[key])
        for entry in states[earlier]["log_history"]:
            for key in ("loss", "eval_loss"):
                others = there.get((entry.get("step"), key))
                if key in entry and others and not _is_among(entry[key], others):
                    raise ValueError(
                        f"output: {folders[earlier]} and {folders[later]} are of two runs ({key} at step "
                        f"{entry['step']} is {entry[key]} in one, {others[-1]} in the other); move those "
                        "of one run elsewhere"
                    )


def _notes_on_order(
    folders: Mapping[int, Path], states: Mapping[int, Mapping[str, Any]]
) -> list[str]:
    """Note on a checkpoint that a training may have left there before it was resumed at an earlier one."""
    for earlier, later in pairwise(step for step in folders if states[step]):
        files = [folders[step] / "trainer_state.json" for step in (earlier, later)]
        lengths = [states[step].get("max_steps") for step in (earlier, later)]
        if lengths[0] != lengths[1] and files[1].stat().st_mtime < files[0].stat().st_mtime:
            return [
                f"{folders[later]} was written before {folders[earlier]}, for a training of {lengths[1]} "
                f"steps in place of {lengths[0]}: if a training that was resumed has left it there, move "
                "it elsewhere"
            ]
    return []


def _is_among(loss: float, others: Sequence[float]) -> bool:
    return loss in others or (math.isnan(loss) and any(map(math.isnan, others)))


def _check_settings(folders: Mapping[int, Path]) -> None:
    """Check that the adapters of all checkpoints have the settings of one run."""
    for earlier, later in pairwise(folders):
        one, other = (
            read_json(file) if (file := folders[step] / "adapter_config.json").is_file() else {}
            for step in (earlier, later)
        )
        for key in _OF_ONE_RUN:
            values = [_unordered(settings.get(key)) for settings in (one, other)]
            if one and other and values[0] != values[1]:
                raise ValueError(
                    f"output: {folders[earlier]} and {folders[later]} are of two runs ({key} is "
                    f"{values[0]} in one, {values[1]} in the other, by adapter_config.json); move those "
                    "of one run elsewhere"
                )


def _unordered(value: Any) -> Any:
    """A setting as it is compared: names of modules come in any order, and nothing may be null or false."""
    return sorted(map(str, value)) if isinstance(value, list) and value else value or None


def _read_last(output: Path, folders: Mapping[int, Path], notes: list[str]) -> int | None:
    """Step of the weights that lie in the output folder itself, if they are a checkpoint of their own."""
    if not _has_weights(output):
        return None
    last = max(folders)
    of_output, of_last = (content_digest(weight_files_of(f)) for f in (output, folders[last]))
    if of_output == of_last:
        notes.append(f"the weights in {output} itself are those of step {last}, and count once")
        return None
    earlier = next(
        (s for s in folders if content_digest(weight_files_of(folders[s])) == of_output), None
    )
    if earlier is not None:
        notes.append(f"the weights in {output} itself are those of step {earlier}, and count once")
        return None
    file = output / "trainer_state.json"
    step = read_json(file).get("global_step") if file.is_file() else None
    if isinstance(step, int) and step > last:
        best = read_json(file).get("best_model_checkpoint")
        if best and step_in_name(str(best).replace("\\", "/")) != step:
            notes.append(
                f"the weights in {output} itself may be those of the best checkpoint ({best}, by its "
                f"{file.name}), which trainers load at the end; they are left out"
            )
            return None
        _kind_of(output)
        notes.append(f"the weights in {output} itself are of step {step}, by its {file.name}")
        return step
    notes.append(
        f"the weights in {output} itself are not those of step {last}, and of no known step; they are "
        "left out"
    )
    return None


def _settings_of(output: Path) -> Iterator[tuple[Path, Mapping[str, Any]]]:
    """Settings that a trainer has written into its output folder as YAML."""
    for file in sorted((*output.glob("*.yaml"), *output.glob("*.yml"))):
        try:
            content = yaml.safe_load(file.read_text("utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError):
            continue  # not the trainer's, or nothing that could be used
        if isinstance(content, dict):
            yield file, content


def find_base(found: TrainerOutput, given: str | None = None) -> tuple[str, str]:
    """The model before SFT, as a ``source`` of the config, and where it is named.

    Args:
        found: what is in the output folder.
        given: a folder or an id of the hub; None where the checkpoints name it.

    Raises:
        ValueError: they name none, several, a quantised one, one that is not here, one of another type, or
            what has been tuned.
    """
    source, where = _named_base(found, given)
    _check_before_sft(source, found)
    _check_type(source, found)
    return source, where


def _check_before_sft(source: str, found: TrainerOutput) -> None:
    """Check that a base is no folder of the run itself."""
    place = Path(source.removeprefix("path:")).resolve()
    of_run = [found.folder, *found.checkpoints.values()]
    if source.startswith("path:") and place in [folder.resolve() for folder in of_run]:
        raise ValueError(
            f"base: {place} is what this run has tuned; add base= with the model before the training to "
            "--config"
        )


def _check_type(source: str, found: TrainerOutput) -> None:
    """Check that a base that is here is of the type and the sizes of what came of it."""
    file = Path(source.removeprefix("path:")) / "config.json"
    if not source.startswith("path:") or not file.is_file():
        return
    base_type = read_json(file).get("model_type")
    for folder in found.checkpoints.values():
        own = folder / "config.json"
        own_type = read_json(own).get("model_type") if own.is_file() else None
        # Of a model for images and text the part for text may have been saved alone.
        parts = {own_type, str(own_type).removesuffix("_text")}
        if own_type is not None and base_type not in parts | {f"{part}_text" for part in parts}:
            raise ValueError(
                f"base: {file} is of type {base_type}, and {own} of type {own_type}; add base= with the "
                "model that this run was tuned from to --config"
            )
    if found.kind == "adapter":
        try:
            check_checkpoint(next(iter(found.checkpoints.values())), file.parent)
        except ValueError as error:
            raise ValueError(f"base: {error}, by base= in --config") from error


def _named_base(found: TrainerOutput, given: str | None) -> tuple[str, str]:
    if given is not None:
        return _source_of(given, "base", None), "given as base"
    output, settings = found.folder, list(_settings_of(found.folder))
    named = _names_of_base(output, found.checkpoints)
    if not named:
        raise ValueError(
            f"base: nothing in {output} names the model before SFT; add base=FOLDER or base=ORG/NAME "
            "to --config"
        )
    names = sorted(set(named.values()))
    if len(names) > 1:
        one, other = (next(file for file in named if named[file] == name) for name in names[:2])
        raise ValueError(
            f"base: {one} names {names[0]}, {other} names {names[1]}; move the checkpoints of one run "
            "elsewhere, or add base= to --config"
        )
    (name,), file = names, next(iter(named))
    quantised = [
        f"{key} in {setting_file}"
        for setting_file, content in settings
        for key in _QUANTISING
        if content.get(key)
    ]
    if _is_quantised(name, output) or quantised:
        why = quantised[0] if quantised else f"the base {name}, which {file} names"
        raise ValueError(
            f"base: the run was trained on a quantised model ({why}); add base=ORG/NAME of the model "
            "before quantisation to --config (the adapter is then added to other weights than it was "
            "trained on)"
        )
    return _source_of(name, f"base: {file} names", output), str(file)


def _names_of_base(output: Path, checkpoints: Mapping[int, Path]) -> dict[Path, str]:
    """What each file says of the base, by file; those of adapters first."""
    named = {}
    for folder in checkpoints.values():
        file = folder / "adapter_config.json"
        if file.is_file() and (name := read_json(file).get("base_model_name_or_path")):
            revision = read_json(file).get("revision")
            is_of_hub = revision and _folder_of(str(name), output) is None
            named[file] = f"{name}@{revision}" if is_of_hub else str(name)
    if named:
        return named
    for folder in checkpoints.values():
        file = folder / "config.json"
        if file.is_file() and (name := read_json(file).get("_name_or_path")):
            named[file] = str(name)
    card = output / "README.md"
    if not named and card.is_file():
        found = re.search(
            r"""^base_model: *(["']?)([^\s"'#]+)\1 *(#.*)?$""", front_matter_of(card), re.M
        )
        if found:
            named[card] = found[2]
    return named


def _folder_of(name: str, output: Path | None) -> Path | None:
    """The folder that a name is, seen from here or from a folder around the output; None for others.

    A trainer notes the name as it was given, from where the training was started.
    """
    around = () if output is None else output.parents
    places = [Path(name), *(parent / name for parent in around)]
    return next((place.resolve() for place in places if place.is_dir()), None)


def _is_quantised(name: str, output: Path) -> bool:
    """Whether a base is quantised: by its config if it is here, else by its name."""
    folder = _folder_of(name, output)
    if folder is None or not (folder / "config.json").is_file():
        return bool(_QUANTISED.search(name.rstrip("/").rpartition("/")[2]))
    return bool(read_json(folder / "config.json").get("quantization_config"))


def _source_of(name: str, where: str, output: Path | None) -> str:
    """A model's name as a source of the config."""
    if name.startswith(("path:", "hub:")):
        return name
    folder = _folder_of(name, output)
    if folder is not None:
        return f"path:{folder}"
    if _ON_THE_HUB.fullmatch(name) and not Path(name).exists():
        return f"hub:{name}" if "@" in name else f"hub:{name}@main"
    raise ValueError(
        f"{where}: {name} is no folder here and no id of the hub; add base=FOLDER or base=ORG/NAME to "
        "--config"
    )


def _other_loss(state: Mapping[str, Any], tags: Collection[str]) -> str | None:
    """Why what a trainer has noted is no loss of held-out responses, in nats a token; None if it may be.

    Args:
        state: what ``trainer_state.json`` holds.
        tags: see :func:`~sft_interactions.own_run.trainers.read_tags`.
    """
    other = sorted(tag for tag in tags if tag in _NOT_CROSS_ENTROPY)
    if other:
        return (
            f"are not taken: the model card has the tag {other[0]}, so what the trainer has made small is "
            "no cross-entropy of the responses"
        )
    entries = state.get("log_history", [])
    keys = sorted({str(key) for entry in entries for key in entry})
    preferred = [key for key in keys if _OF_PREFERENCES.search(key)]
    if preferred:
        return (
            f"are not taken: it has {preferred[0]}, so the training was one by preferences or rewards "
            "(DPO, ORPO, KTO, GRPO, ...), whose loss is not that of a response"
        )
    negative = [entry["eval_loss"] for entry in entries if entry.get("eval_loss", 0) < 0]
    if negative:
        return (
            f"are not taken: an eval_loss is {negative[0]}, and a cross-entropy is never negative"
        )
    endless = [
        f"{entry['eval_loss']} at step {entry.get('step')}"
        for entry in entries
        if not math.isfinite(entry.get("eval_loss", 0))
    ]
    if endless:
        return f"are not taken: eval_loss is {endless[0]}, as where a training has diverged"
    several = [key for key in keys if _OF_ONE_SET.fullmatch(key)]
    if several and "eval_loss" not in keys:
        return (
            f"are not taken: they are of evaluation sets by name ({', '.join(several)}), and none of them "
            "is told to be that of validation"
        )
    return None


def _router_loss(folder: Path) -> str | None:
    """Why the losses of a mixture of experts are no cross-entropy: that of its router is in them."""
    file = folder / "config.json"
    config = read_json(file) if file.is_file() else {}
    if config.get("output_router_logits") and config.get("router_aux_loss_coef", 1):
        return (
            f"are not taken: output_router_logits is true in {file}, so that a loss of the router is added "
            "to the cross-entropy"
        )
    return None


def without_router_loss(found: TrainerOutput, source: str) -> TrainerOutput:
    """The same without losses, where the base of an adapter is here and adds a loss of its router.

    Args:
        found: what is in the output folder.
        source: of the model before SFT, see :func:`find_base`.
    """
    is_here = found.kind == "adapter" and source.startswith("path:")
    why = _router_loss(Path(source.removeprefix("path:"))) if is_here else None
    if why is None or not found.losses:
        return found
    notes = [*found.notes, f"the losses in {found.losses_from} {why}"]
    return replace(found, losses={}, losses_from=None, notes=notes)


def _losses_in(state: Mapping[str, Any]) -> dict[int, float]:
    """``eval_loss`` by step, the last one where a step was evaluated twice."""
    return {
        int(entry["step"]): float(entry["eval_loss"])
        for entry in state.get("log_history", [])
        if "eval_loss" in entry and "step" in entry
    }
