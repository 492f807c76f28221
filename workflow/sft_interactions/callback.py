"""A callback for transformers' Trainer, and for TRL's: interactions while a model is being fine-tuned.

Needs transformers alone.
"""

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from sft_interactions.analysis.online import OnlineRun, Reading
from sft_interactions.explanation import draw_players
from sft_interactions.extraction.interactions import to_values
from sft_interactions.masking.live import (
    MAX_ERROR,
    check_live,
    in_float32,
    live_log_odds,
    undisturbed,
)
from sft_interactions.masking.log_odds import MaskedPrompt
from sft_interactions.masking.mask_embedding import make_mask_embedding
from sft_interactions.models.loading import check_reading
from sft_interactions.models.prompts import make_prompt, mask_token_id
from sft_interactions.models.templates import TEMPLATE_DATE, make_frame
from sft_interactions.shortage import shortage_behind
from sft_interactions.tables import replacing

if TYPE_CHECKING:
    from sft_interactions.data.words import Word

_PREFIX = "interactions/"
_LOG_ODDS = "log_odds.parquet"
_DIGEST = "read_from"  # metadata of what was written: the digest of what log-odds depend on


class InteractionCallback(TrainerCallback):
    """Follows the interactions of some prompts through a training.

    ``callback.attach(trainer)`` adds it to a trainer. It measures before the first step, at every save and
    at the end, and changes nothing of the training: weights and losses are the same to the bit. Each time
    the trainer's loggers get, under ``interactions/``:

    - ``salient``, the number of salient interactions a prompt;
    - ``kept``, ``lost`` and ``new`` of them since the measurement before, and ``loss_rate``, the share that
      was lost, with its interval;
    - ``rho`` of all that are salient, with its chance level, and with a reference model ``gamma``;
    - ``denoising_ends``, with its interval (``_low``, ``_high``), while the detector of
      :mod:`~sft_interactions.analysis.turnover` names a checkpoint.

    What has no value is left out. Interactions are read as the workflow reads them by default, but with the
    reading ``single``: each checkpoint by itself, ties to the higher order. So the numbers of a step do not
    change when later ones come.

    Args:
        prompts: (prompt, target) pairs, the user text and the response, best held-out ones.
        tokenizer: by default the trainer's ``processing_class``; a fast one.
        players: words to mask of each prompt, drawn as :func:`~sft_interactions.explanation.explain` draws
            them.
        template: as of ``explain``.
        instruction: as of ``explain``.
        template_date: as of ``explain``.
        mask_embedding: as of ``explain``.
        mask_token: as of ``explain``; of the model that is trained.
        method: ``prefix_tree``, or ``full_length``, which is slower and takes any architecture.
        every: ``save``, or measure every so many optimizer steps.
        reference_model: a model of another architecture for γ, which is measured once; or None.
        reference_tokenizer: its tokenizer; needed with it.
        reference_template: its template; by default ``template``.
        reading: how interactions are read.
        patience: at how many measurements in a row the detector must give the same answer before a line
            tells of it.
        stop_training: whether the training is then stopped. It has not been shown that this is the
            checkpoint to keep (docs/stopping.md).
        float32_copy: measure a copy in float32 of a model whose weights are in half precision.
        seed: of the draw of the players.
        folder: where :meth:`save` writes after each measurement, so that a training that goes on from a
            checkpoint goes on here too; by default nothing is written.

    Attributes:
        problem: why measuring has stopped, or None.
        suggestion: the line that was printed last, or None.

    Raises:
        ValueError: an argument is not one of those above.
    """

    def __init__(
        self,
        prompts: Sequence[tuple[str, str]],
        *,
        tokenizer: PreTrainedTokenizerBase | None = None,
        players: int = 6,
        template: str = "chat",
        instruction: str = "{prompt}",
        template_date: str = TEMPLATE_DATE,
        mask_embedding: str = "token",
        mask_token: str | None = None,
        method: str = "prefix_tree",
        every: Literal["save"] | int = "save",
        reference_model: PreTrainedModel | None = None,
        reference_tokenizer: PreTrainedTokenizerBase | None = None,
        reference_template: str | None = None,
        reading: Reading | None = None,
        patience: int = 3,
        stop_training: bool = False,
        float32_copy: bool = False,
        seed: int = 0,
        folder: str | Path | None = None,
    ) -> None:
        self.prompts = _checked(prompts)
        if every != "save" and not _is_count(every):
            raise ValueError(f"every is {every!r}; give 'save' or a number of steps")
        if not _is_count(patience):
            raise ValueError(f"patience is {patience!r}; give a whole number, 1 at least")
        if not isinstance(stop_training, bool):
            raise ValueError(f"stop_training is {stop_training!r}; give True or False")
        if method not in ("prefix_tree", "full_length"):
            raise ValueError(f"method is {method!r}; give prefix_tree or full_length")
        if (reference_model is None) != (reference_tokenizer is None):
            raise ValueError(
                "reference_model and reference_tokenizer: only one is given; give both, since tokens of "
                "one tokenizer mean nothing to the model of another"
            )
        self.tokenizer = tokenizer
        self.players, self.seed = players, seed
        self.instruction, self.template_date = instruction, template_date
        self.template, self.reference_template = template, reference_template or template
        self.mask_embedding, self.mask_token = mask_embedding, mask_token
        self.method, self.every = method, every
        self.reference_model, self.reference_tokenizer = reference_model, reference_tokenizer
        self.reading = reading or Reading()
        self.patience, self.stop_training = patience, stop_training
        self.float32_copy = float32_copy
        self.folder = None if folder is None else Path(folder)
        self.problem: str | None = None
        self.suggestion: str | None = None
        self.words = [
            draw_players(prompt, players, seed, f"prompts[{number}]", "players")
            for number, (prompt, _) in enumerate(self.prompts)
        ]
        self._trainer: Trainer | None = None
        self._run: OnlineRun | None = None
        self._measured_in_folder = False

    def attach(self, trainer: Trainer) -> None:
        """Add the callback to a trainer, through which it reaches the trainer's loggers.

        transformers hands a callback no trainer, and what a callback adds to ``logs`` comes too late: the
        loggers are callbacks that are called before it. TRL gives its own callbacks the trainer too. A
        method ``log`` of a subclass of Trainer is not called.

        Raises:
            ValueError: the tokenizer is missing or not a fast one, a prompt cannot be masked with it, or a
                training of several processes is to be stopped.
        """
        if self.tokenizer is None:
            self.tokenizer = _tokenizer_of(trainer)
        self._tokenize(self.tokenizer, self.template, self.mask_token, "tokenizer")
        if self.reference_tokenizer is not None:
            self._tokenize(
                self.reference_tokenizer, self.reference_template, None, "reference_tokenizer"
            )
        if self.stop_training and trainer.args.world_size > 1:
            raise ValueError(
                f"stop_training: {trainer.args.world_size} processes train, and the others would wait for "
                "the first for ever; set it to False"
            )
        self._trainer = trainer
        if self not in trainer.callback_handler.callbacks:
            trainer.add_callback(self)

    def _tokenize(
        self,
        tokenizer: PreTrainedTokenizerBase,
        template: str,
        mask_token: str | None,
        where: str,
    ) -> tuple[list[MaskedPrompt], int | None]:
        """The prompts in the tokens of a tokenizer, and the token that masks a word."""
        if not getattr(tokenizer, "is_fast", False):
            raise ValueError(
                f"{where}: {type(tokenizer).__name__} does not tell the places of tokens; give a fast "
                "tokenizer (PreTrainedTokenizerFast)"
            )
        frame = make_frame(tokenizer, template, self.instruction, self.template_date)
        pairs = zip(self.prompts, self.words, strict=True)
        masked = [
            _masked(tokenizer, frame, f"prompts[{number}]", text, target, words)
            for number, ((text, target), words) in enumerate(pairs)
        ]
        by_token = self.mask_embedding == "token"
        return masked, mask_token_id(tokenizer, mask_token) if by_token else None

    # --- Events of the trainer ---------------------------------------------------------------------

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Check the model, and measure it before its first step; the tables of a training before go.

        A training that goes on from a checkpoint is measured there again, which must give the log-odds that
        are kept.

        Raises:
            ValueError: the model cannot be measured; the training goes on from a checkpoint, and what came
                before is not kept in ``folder``, or is of another training; or it begins, and ``folder``
                has the measurements of another one.
        """
        if self._trainer is None or self.tokenizer is None:
            raise ValueError(
                "InteractionCallback: it has no trainer, whose loggers it writes to; make the trainer "
                "without it, then call callback.attach(trainer)"
            )
        if state.global_step and self.folder is None:
            raise ValueError(
                f"InteractionCallback: the training goes on from step {state.global_step}, and what came "
                "before is not kept; leave the callback out, or begin anew with folder=..."
            )
        if not state.is_world_process_zero:
            return
        self.problem = self.suggestion = None
        model = self._live_model()
        check_live(model, "model", may_copy=self.float32_copy)
        self._run = OnlineRun(
            [f"prompt-{number:04}" for number in range(len(self.prompts))],
            self.reading,
            self._measure_reference(model),
        )
        if state.global_step:
            self._go_on(state.global_step)
            return
        # A batch that was too large begins the same training anew.
        if not (args.auto_find_batch_size and self._measured_in_folder):
            self._check_folder_is_free()
        self._measure(state, control)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Measure, if ``every`` is a number of steps that are done."""
        if self.every != "save" and state.global_step % self.every == 0:
            self._measure_if_new(state, control)

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Measure what has just been saved, if ``every`` is ``save``."""
        if self.every == "save":
            self._measure_if_new(state, control)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Measure the last step, unless the weights of the best checkpoint have taken its place."""
        if not args.load_best_model_at_end:
            self._measure_if_new(state, control)

    # --- Measuring -----------------------------------------------------------------------------------

    def _live_model(self) -> PreTrainedModel:
        model: Any = self._trainer.model if self._trainer else None
        found: PreTrainedModel = model
        return found

    def _measure_reference(self, model: PreTrainedModel) -> NDArray[np.float32] | None:
        reference, tokenizer = self.reference_model, self.reference_tokenizer
        if reference is None or tokenizer is None:
            return None
        own = {id(weight) for weight in model.parameters()}
        if any(id(weight) in own for weight in reference.parameters()):
            raise ValueError(
                "reference_model: it shares weights with the model that is trained; load it anew"
            )
        check_live(reference, "reference_model", may_copy=self.float32_copy)
        return self._log_odds(
            reference, tokenizer, self.reference_template, None, "reference_model"
        )

    def _measure_if_new(self, state: TrainerState, control: TrainerControl) -> None:
        """Measure a step that has not been measured; a failure ends the measuring, not the training."""
        if self._run is None or self.problem or state.global_step in self._run.steps:
            return
        try:
            self._measure(state, control)
        except (ValueError, RuntimeError, OSError) as error:
            self.problem = f"step {state.global_step}: {error}"
            print(f"interactions: measuring has stopped, the training goes on; {self.problem}")

    def _measure(self, state: TrainerState, control: TrainerControl) -> None:
        if self._run is None or self._trainer is None or self.tokenizer is None:
            return
        begin = time.perf_counter()
        values = self._log_odds(
            self._live_model(), self.tokenizer, self.template, self.mask_token, "model"
        )
        row = self._run.add(state.global_step, values)
        numbers = {
            f"{_PREFIX}{name}": float(value)
            for name, value in row.items()
            if name != "step" and value is not None and not isinstance(value, str)
        }
        stage = self._run.stages.get(state.global_step)
        if stage is not None and stage.step is not None:
            numbers[f"{_PREFIX}denoising_ends"] = float(stage.step)
        numbers[f"{_PREFIX}seconds"] = time.perf_counter() - begin
        self._log(numbers, control)
        if self.folder is not None:
            self.save(self.folder)
            self._measured_in_folder = True
        self._suggest(control)

    def _log_odds(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        template: str,
        mask_token: str | None,
        where: str,
    ) -> NDArray[np.float32]:
        """(prompts, 2^n) log-odds of a model as it stands."""
        prompts, token_id = self._tokenize(tokenizer, template, mask_token, where)
        with undisturbed(model):
            model = in_float32(model)
            check_reading(model, where)
            embedding = make_mask_embedding(model, self.mask_embedding, token_id)
            return live_log_odds(model, prompts, embedding, method=self.method, where=where)

    def _log(self, numbers: dict[str, float], control: TrainerControl) -> None:
        """Hand numbers to the trainer's log."""
        should_log = control.should_log
        # Not trainer.log: TRL's adds the means of its own metrics there, and begins them anew.
        Trainer.log(self._trainer, numbers)  # type: ignore[arg-type]  # it is there, see on_train_begin
        # Which logging takes for done, though the trainer's own loss is still to be logged.
        control.should_log = should_log

    def _suggest(self, control: TrainerControl) -> None:
        stage = self._run.settled_stage(self.patience) if self._run else None
        if stage is None:
            return
        line = (
            f"interactions: the loss rate has fallen after step {stage.step} (interval {stage.low} to "
            f"{stage.high}); it is not shown that this is the checkpoint to keep, see docs/stopping.md"
        )
        if line != self.suggestion:
            self.suggestion = line
            print(line)
        if self.stop_training:
            control.should_training_stop = True

    # --- What has been measured --------------------------------------------------------------------

    @property
    def table(self) -> pl.DataFrame:
        """A row a measured step, see :attr:`~sft_interactions.analysis.online.OnlineRun.measurements`."""
        return self._measured().measurements

    @property
    def interactions(self) -> pl.DataFrame:
        """Rows (step, sample_id, kind, pattern, order, effect, salient, words); bias included.

        ``prompt-0003`` is ``prompts[3]``, bit k of ``pattern`` stands for its word k.
        """
        words = pl.DataFrame(
            [
                (
                    f"prompt-{number:04}",
                    pattern,
                    [w.text for k, w in enumerate(own) if pattern >> k & 1],
                )
                for number, own in enumerate(self.words)
                for pattern in range(1 << self.players)
            ],
            schema={"sample_id": pl.String, "pattern": pl.UInt32, "words": pl.List(pl.String)},
            orient="row",
        )
        rows = self._measured().interactions
        return rows.join(words, on=["sample_id", "pattern"], how="left", maintain_order="left")

    @property
    def log_odds(self) -> pl.DataFrame:
        """Rows (step, sample_id, mask, log_odds), all that the other tables follow from."""
        return self._measured().log_odds

    def save(self, folder: str | Path) -> None:
        """Write ``table``, ``interactions`` and ``log_odds`` to a folder, as Parquet files so named."""
        for name in ("table", "interactions", "log_odds"):
            with replacing(Path(folder) / f"{name}.parquet") as temporary:
                getattr(self, name).write_parquet(
                    temporary, compression="zstd", metadata={_DIGEST: self._digest()}
                )

    def _digest(self) -> str:
        """Of all that log-odds depend on beside the model."""
        if self.tokenizer is None:
            return ""
        prompts, token_id = self._tokenize(
            self.tokenizer, self.template, self.mask_token, "tokenizer"
        )
        parts = [asdict(prompt) for prompt in prompts]
        text = json.dumps([parts, self.mask_embedding, token_id])
        return hashlib.sha256(text.encode()).hexdigest()

    def _check_folder_is_free(self) -> None:
        if self.folder is not None and (self.folder / _LOG_ODDS).exists():
            raise ValueError(
                f"{self.folder / _LOG_ODDS}: it has the measurements of another training; name another "
                "folder, or delete this one"
            )

    def _go_on(self, last: int) -> None:
        """Take up what is kept in the folder of the steps up to ``last``, and measure that step again."""
        if self.folder is None or self._run is None or self.tokenizer is None:
            return
        file = self.folder / _LOG_ODDS
        kept = _read_kept(file, self._digest())
        steps = [step for step in sorted(kept) if step <= last]
        if last not in steps:
            raise ValueError(
                f"{file}: it has no measurement of step {last}, from which the training goes on; go on "
                f"from the checkpoint of step {max(steps, default=0)}, or leave the callback out"
            )
        now = self._log_odds(
            self._live_model(), self.tokenizer, self.template, self.mask_token, "model"
        )
        difference = float(np.abs(now - kept[last]).max())
        if not difference <= MAX_ERROR:
            raise ValueError(
                f"{file}: its log-odds of step {last} differ by {difference:.3g} from those of the model, "
                "so they are of another training; name the folder of this one"
            )
        for step in steps:
            self._run.add(step, kept[step])

    def _measured(self) -> OnlineRun:
        if self._run is None:
            raise ValueError("InteractionCallback: nothing has been measured; train first")
        return self._run


def _read_kept(file: Path, digest: str) -> dict[int, NDArray[np.float32]]:
    """Log-odds (prompts, 2^n) by step, as :meth:`InteractionCallback.save` has written them.

    Raises:
        ValueError: there is no such file, it is damaged, or of other prompts.
    """
    if not file.is_file():
        raise ValueError(
            f"{file}: there is no such file, so what came before is not known; begin the training anew, or "
            "leave the callback out"
        )
    try:
        rows = pl.read_parquet(file)
        own = pl.read_parquet_metadata(file).get(_DIGEST)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        if shortage_behind(error):
            raise
        raise ValueError(f"{file}: it is damaged; leave the callback out, or begin anew") from None
    if own != digest:
        raise ValueError(
            f"{file}: it is of other prompts, words, tokens or another mask embedding; give the callback "
            "the arguments that it had before"
        )
    parts = rows.partition_by("step", as_dict=True, include_key=False)
    return {
        int(step): to_values(part, str(file))[1].astype(np.float32)
        for (step,), part in parts.items()
    }


def _is_count(value: object) -> bool:
    return not isinstance(value, bool) and isinstance(value, Integral) and int(value) >= 1


def _checked(prompts: Sequence[Any]) -> list[tuple[str, str]]:
    """The pairs of texts that were given.

    Raises:
        ValueError: there is none, one is no pair of texts, or one is there twice.
    """
    if not prompts:
        raise ValueError("prompts: none are given; name one at least, better a dozen")
    checked: list[tuple[str, str]] = []
    for number, pair in enumerate(prompts):
        is_pair = isinstance(pair, tuple | list) and len(pair) == 2
        if not (is_pair and all(isinstance(text, str) for text in pair)):
            raise ValueError(f"prompts[{number}]: it is no pair of texts; give (prompt, target)")
        if (same := (pair[0], pair[1])) in checked:
            raise ValueError(
                f"prompts[{number}]: it is prompts[{checked.index(same)}] again, and would count twice; "
                "leave one out"
            )
        checked.append(same)
    return checked


def _tokenizer_of(trainer: Trainer) -> PreTrainedTokenizerBase:
    found = trainer.processing_class
    if not isinstance(found, PreTrainedTokenizerBase):
        raise ValueError(
            f"tokenizer: the trainer's processing_class is {type(found).__name__}; give the callback a "
            "tokenizer"
        )
    return found


def _masked(
    tokenizer: PreTrainedTokenizerBase,
    frame: Any,
    where: str,
    text: str,
    target: str,
    words: "Sequence[Word]",
) -> MaskedPrompt:
    prompt = make_prompt(tokenizer, frame, where, text, target, words)
    return MaskedPrompt(prompt.token_ids, prompt.player_of_token, prompt.target_token_ids)
