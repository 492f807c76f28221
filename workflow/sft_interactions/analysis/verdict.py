"""What a fine-tuning run did, and which checkpoint to keep, in sentences; or why that cannot be said.

The checkpoint is the one with the lowest validation loss: docs/stopping.md is the study by which
interactions choose none. What they tell of the run is held against noise (the churn floor) and against the
rest of the run (docs/protocol.md).
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import polars as pl
from scipy.special import stdtrit

from sft_interactions.analysis.dynamics import REMOVED
from sft_interactions.analysis.intervals import FEWEST_SAMPLES
from sft_interactions.analysis.metrics import compute_metrics
from sft_interactions.analysis.runs import overall_metrics
from sft_interactions.analysis.turnover import LAST, NONE, Stage
from sft_interactions.verdict_table import SENTENCES

# With fewer checkpoints one interval of four has no later ones to be held against.
FEWEST_CHECKPOINTS = 5
# Change of the validation loss, in nats, that is none.
LEAST_CHANGE = 0.001
# Characters of a response on the page.
RESPONSE_SHOWN = 80


@dataclass(frozen=True)
class Facts:
    """What a verdict rests on.

    Attributes:
        title: of the run.
        steps: analysed checkpoints, sorted, the first before SFT.
        n_samples: number of analysed prompts.
        n_players: number of players of each.
        players: what they are, such as words.
        ended: step that the training ended at; None where it is not known.
        metrics: rows (step, class, metric, value, ci_low, ci_high) of all orders together.
        covered: the same of the prompts that the churn floor is of; None where those are all.
        n_covered: how many prompts those are.
        stage: where the denoising stage ends by docs/protocol.md.
        losses: validation loss by step, in nats a token; a step need not be among ``steps``.
        whose_losses: what the loss is called, such as ``validation loss``.
        sample_losses: rows (sample_id, step, loss, n_tokens), of which ``losses`` are the means a token;
            None where means alone are known.
        skipped: checkpoints of the run whose interactions were not looked at.
        level: of the intervals.
        read: what the model reads of the first prompt, the token that is scored, and the response that it
            begins or is.
        n_parts: prompts of which the scored token is a part of the response.
    """

    title: str
    steps: Sequence[int]
    n_samples: int
    n_players: int
    metrics: pl.DataFrame
    stage: Stage
    losses: Mapping[int, float]
    whose_losses: str = "validation loss"
    sample_losses: pl.DataFrame | None = None
    skipped: Sequence[int] = ()
    level: float = 0.95
    read: tuple[str, str, str] = ("", "", "")
    n_parts: int = 0
    covered: pl.DataFrame | None = None
    n_covered: int = 0
    players: str = "words"
    ended: int | None = None

    @property
    def went_on(self) -> bool:
        """Whether the training is known to have gone on after the last checkpoint."""
        return self.ended is not None and self.ended > max(self.saved, default=0)

    @property
    def saved(self) -> list[int]:
        """Checkpoints after step 0, sorted; the loss of one need not be known."""
        return sorted(step for step in {*self.steps, *self.skipped} if step > 0)

    @property
    def kept(self) -> int | None:
        """The checkpoint with the lowest loss, the first of several; None if none is known."""
        return _lowest(self.known) if self.known else None

    @property
    def known(self) -> dict[int, float]:
        """The losses of the checkpoints after step 0; those of steps that were not saved are left out."""
        return {step: self.losses[step] for step in self.saved if step in self.losses}

    @property
    def trained(self) -> dict[int, float]:
        """The losses without that of the model before SFT."""
        return _trained(self.losses)

    @property
    def best(self) -> int:
        """The step after step 0 with the lowest loss, the first of several; one must be known."""
        return _lowest(self.trained)

    def value(self, step: int, label: str, metric: str) -> float | None:
        """A mean a prompt; None where it is undefined."""
        rows = self._row(step, label, metric)
        return None if rows.is_empty() else rows["value"].item()

    def removed_where_covered(self, step: int) -> tuple[float | None, float | None]:
        """What is gone in the prompts of the churn floor: mean, and the lower end of its interval."""
        rows = self._row(step, "removed", "count", self.covered)
        return (None, None) if rows.is_empty() else rows.select("value", "ci_low").row(0)

    def _row(
        self, step: int, label: str, metric: str, metrics: pl.DataFrame | None = None
    ) -> pl.DataFrame:
        chosen = (pl.col("step") == step, pl.col("class") == label, pl.col("metric") == metric)
        return (self.metrics if metrics is None else metrics).filter(*chosen).drop_nulls("value")


def _trained(losses: Mapping[int, float]) -> dict[int, float]:
    return {step: loss for step, loss in losses.items() if step > 0}


def _lowest(losses: Mapping[int, float]) -> int:
    return min(losses, key=lambda step: (losses[step], step))


@dataclass(frozen=True)
class Verdict:
    """A verdict in sentences.

    Attributes:
        checkpoint: which checkpoint to keep, or why none is named.
        learning: whether the run has learned, and whether it overfits.
        interactions: what happened to the interactions.
        stage: where the denoising stage ends, or why there is no answer.
        kept_step: the step of the checkpoint, or None.
    """

    checkpoint: str
    learning: str
    interactions: str
    stage: str
    kept_step: int | None

    @property
    def sentences(self) -> list[str]:
        """Those that there are, in their order."""
        return [text for name in SENTENCES if (text := getattr(self, name))]

    def __str__(self) -> str:
        return " ".join(self.sentences)


class Change(NamedTuple):
    """How a loss differs between two checkpoints, in nats a token.

    Attributes:
        value: the later one less the earlier one.
        low, high: its interval; equal to ``value`` where single responses are not known, endless where
            there are too few of them.
        n_samples: responses; 0 where single ones are not known.
    """

    value: float
    low: float
    high: float
    n_samples: int = 0

    @property
    def is_certain(self) -> bool:
        """Whether nothing known says that its sign may be chance."""
        return self.low > 0 or self.high < 0

    def __str__(self) -> str:
        """Its size where the sign is certain, which the verb then has; else with the sign."""
        ends = [abs(end) if self.is_certain else end for end in (self.value, self.low, self.high)]
        size = f"by {ends[0]:.3f} nats"
        if not self.n_samples:
            return size
        number = _number(self.n_samples, "response")
        if not np.isfinite(self.low):
            return f"{size} ({number}; {FEWEST_SAMPLES} are needed)"
        return f"{size} ({min(ends[1:]):.3f} to {max(ends[1:]):.3f}, {number})"


def loss_change(sample_losses: pl.DataFrame, earlier: int, later: int, level: float) -> Change:
    """Change of the loss a token between two checkpoints, from the same responses at both.

    The interval is that of a ratio of sums (linearised) with Student's t over responses.

    Args:
        sample_losses: rows (sample_id, step, loss, n_tokens); ``loss`` is the sum over a response's tokens.
        earlier: step of the one checkpoint.
        later: step of the other.
        level: of the interval, such as 0.95.

    Returns:
        The change; with fewer than ``FEWEST_SAMPLES`` responses any change may be chance.
    """
    first, second = (
        sample_losses.filter(pl.col("step") == step).sort("sample_id") for step in (earlier, later)
    )
    tokens = first["n_tokens"].to_numpy().astype(np.float64)
    differences = second["loss"].to_numpy() - first["loss"].to_numpy()
    n = len(tokens)
    value = float(differences.sum() / tokens.sum())
    if n < FEWEST_SAMPLES:
        return Change(value, -np.inf, np.inf, n)
    residuals = differences - value * tokens
    error = float(np.sqrt(n / (n - 1) * (residuals**2).sum()) / tokens.sum())
    half = float(stdtrit(n - 1, (1 + level) / 2)) * error
    return Change(value, value - half, value + half, n)


def metrics_of_covered(
    dynamics: pl.DataFrame,
    samples: Sequence[str],
    n_covered: int,
    steps: Sequence[int],
    n_players: int,
    *,
    level: float,
) -> pl.DataFrame | None:
    """What :class:`Facts` has as ``covered``, of the last checkpoint; None where all samples are covered.

    Args:
        dynamics: rows of a ``dynamics`` table.
        samples: all analysed samples.
        n_covered: how many of them, the first, the churn floor covers.
        steps: analysed checkpoints, sorted, the first before SFT.
        n_players: number of players of a prompt.
        level: see :func:`~sft_interactions.analysis.metrics.compute_metrics`.
    """
    if n_covered >= len(samples):
        return None
    covered = list(samples[:n_covered])
    # Of what is removed alone: nothing else is compared with the floor.
    rows = dynamics.filter(
        pl.col("sample_id").is_in(covered),
        pl.col("class") == REMOVED,
        pl.col("step") == steps[-1],
    )
    ends = [steps[0], steps[-1]]
    return overall_metrics(compute_metrics(rows, covered, ends, n_players, level=level))


def judge(facts: Facts) -> Verdict:
    """The verdict on a run."""
    kept, checkpoint = _judge_losses(facts)
    unseen = [step for step in facts.skipped if step not in facts.losses]
    if unseen:
        steps, were = ("Step", "was") if len(unseen) == 1 else ("Steps", "were")
        checkpoint += f" {steps} {', '.join(map(str, unseen))} {were} not looked at."
    unknown = [step for step in facts.steps if step > 0 and step not in facts.losses]
    if unknown and len(facts.trained) > 1:
        steps = "step" if len(unknown) == 1 else "steps"
        checkpoint += f" Of {steps} {', '.join(map(str, unknown))} no loss is known."
    if facts.went_on:
        checkpoint += (
            f" The training went on to step {facts.ended}, of which there is no checkpoint."
        )
    return Verdict(
        checkpoint,
        _judge_learning(facts),
        _judge_interactions(facts),
        _judge_stage(facts),
        kept,
    )


def _judge_losses(facts: Facts) -> tuple[int | None, str]:
    name = facts.whose_losses
    after = facts.trained
    if not after:
        return None, (
            "No checkpoint is named: no validation loss is known, and interactions alone do not choose one."
        )
    best, last = facts.kept, max(after)
    if best is None:
        return None, (
            f"No checkpoint is named: the {name} is known at steps of which there is no checkpoint "
            f"({', '.join(map(str, sorted(after)))})."
        )
    if best != facts.best:
        return _judge_saved(facts, best)
    lowest = f"the lowest {name}, {_in_words(after[best])}"
    if not _is_better(facts, best):
        return None, _none_is_better(facts, best)
    if len(after) == 1:
        beside = "beside step 0 " if 0 in facts.losses else ""
        return None, f"No checkpoint is named: {beside}the {name} is known at step {best} alone."
    ties = _ties(facts, best)
    if best == last:
        before = max(step for step in after if step != last)
        lowest_before = _lowest({step: loss for step, loss in after.items() if step != last})
        if after[lowest_before] - after[best] < LEAST_CHANGE:
            course = (
                f"since step {lowest_before} it has fallen by less than {LEAST_CHANGE} nats, which is no "
                "fall"
            )
        elif before in ties.steps:
            course = f"whether it still falls after step {before} cannot be told"
        elif facts.went_on:
            course = "it was still falling there"
        else:
            course = "it was still falling; training on may lower it further"
        is_last = f"the last {'checkpoint' if facts.went_on else 'one'}"
        if best != facts.saved[-1]:
            is_last += " whose loss is known"
        return best, f"Keep step {best}, {is_last}: it has {lowest}; {course}.{ties.told}"
    rise = after[last] - after[best]
    risen = f"{after[last]:.3f} at step {last}"
    if rise < LEAST_CHANGE:
        risen += ", which is no less good"
    return best, f"Keep step {best}: it has {lowest} ({risen}).{ties.told}"


def _is_better(facts: Facts, best: int) -> bool:
    """Whether a checkpoint has a lower loss than the model before SFT, as far as that is known."""
    return _has_learned(facts.losses, best)


def _has_learned(losses: Mapping[int, float], best: int) -> bool:
    return 0 not in losses or losses[0] - losses[best] >= LEAST_CHANGE


def _none_is_better(facts: Facts, best: int) -> str:
    before, lowest = facts.losses[0], facts.losses[best]
    less = f", less than {LEAST_CHANGE} nats less" if lowest < before else ""
    return (
        f"No checkpoint is named: none has a lower {facts.whose_losses} than the model before SFT "
        f"({before:.3f}; step {best}: {lowest:.3f}{less})."
    )


class _Ties(NamedTuple):
    """Checkpoints whose loss may be as low as the lowest one, and the sentence on them."""

    steps: Sequence[int] = ()
    told: str = ""


def _ties(facts: Facts, best: int) -> _Ties:
    """Which checkpoints cannot be told from the best one; none where no interval is known."""
    if facts.sample_losses is None:
        return _Ties()
    changes = {step: _change(facts, best, step) for step in sorted(facts.trained) if step != best}
    steps = [step for step, change in changes.items() if change.n_samples and not change.is_certain]
    if not steps:
        return _Ties()
    number = _number(max(changes[step].n_samples for step in steps), "response")
    if len(steps) == len(changes):
        return _Ties(steps, f" On {number} no other checkpoint can be told from it.")
    which = f"step {steps[0]}" if len(steps) == 1 else f"steps {', '.join(map(str, steps))}"
    return _Ties(steps, f" On {number} it cannot be told from {which}.")


def _in_words(loss: float) -> str:
    """A loss, and what it means: the geometric mean of the probabilities of the right tokens."""
    percent = 100 * np.exp(-loss)
    share = f"{percent:.0f} %" if percent >= 1 else "less than 1 %"
    return f"{loss:.3f} nats a token, {share} for the right token"


def _judge_saved(facts: Facts, best: int) -> tuple[int | None, str]:
    """The checkpoint to keep where the lowest loss is at a step that was not saved."""
    losses, name = facts.losses, facts.whose_losses
    if not _is_better(facts, best):
        return None, _none_is_better(facts, best)
    lower = ""
    if losses[best] - losses[facts.best] >= LEAST_CHANGE:
        lower = (
            f" The loss was lower, {losses[facts.best]:.3f} nats, at step {facts.best}, of which there is "
            "no checkpoint."
        )
    if len(facts.known) == 1 < len(facts.saved):
        return None, (
            f"No checkpoint is named: of {len(facts.saved)} checkpoints the {name} is known of step {best} "
            f"alone ({losses[best]:.3f}).{lower}"
        )
    among = (
        "all checkpoints" if len(facts.known) == len(facts.saved) else "those whose loss is known"
    )
    return best, (
        f"Keep step {best}: of {among} it has the lowest {name}, {_in_words(losses[best])}.{lower}"
    )


def overfits_after(
    losses: Mapping[int, float], sample_losses: pl.DataFrame | None, level: float
) -> int | None:
    """The step of the lowest loss, where the verdict is that the run overfits after it; else None.

    A run whose loss is never lower than that of the model before SFT has not learned, and does not overfit.

    Args:
        losses: validation loss by step.
        sample_losses: of single responses, as in :class:`Facts`; None where they are not known.
        level: of the intervals.
    """
    trained = _trained(losses)
    if not trained or not _has_learned(losses, _lowest(trained)):
        return None
    rise = _rise(losses, sample_losses, level)
    return _lowest(trained) if rise is not None and rise.is_certain else None


def _rise(
    losses: Mapping[int, float], sample_losses: pl.DataFrame | None, level: float
) -> Change | None:
    """From the lowest loss after step 0 to the last one; None where there is none."""
    trained = _trained(losses)
    best, last = _lowest(trained), max(trained)
    if best == last or losses[last] - losses[best] < LEAST_CHANGE:
        return None
    return _change_of(losses, sample_losses, level, best, last)


def _judge_learning(facts: Facts) -> str:
    if not facts.trained:
        return ""
    best = facts.best
    told = (_learned(facts, best), _overfits(facts, best, max(facts.trained)))
    return " ".join(filter(None, told))


def _change(facts: Facts, earlier: int, later: int) -> Change:
    return _change_of(facts.losses, facts.sample_losses, facts.level, earlier, later)


def _change_of(
    losses: Mapping[int, float],
    sample_losses: pl.DataFrame | None,
    level: float,
    earlier: int,
    later: int,
) -> Change:
    """Change of the loss, at a level that holds for whichever checkpoint the lowest loss is at."""
    if sample_losses is None:
        value = losses[later] - losses[earlier]
        return Change(value, value, value)
    return loss_change(sample_losses, earlier, later, 1 - (1 - level) / len(_trained(losses)))


def _learned(facts: Facts, best: int) -> str:
    if 0 not in facts.losses:
        return "Whether it learned is not told: the loss before SFT is not known."
    if not _is_better(facts, best):
        return _rose_from_the_start(facts, best)
    fall = _change(facts, 0, best)
    if fall.is_certain:
        return f"It learned: from the model before SFT to step {best} the loss falls {fall}."
    return (
        f"Whether it learned cannot be told: from the model before SFT to step {best} the loss changes "
        f"{fall}, which may be chance."
    )


def _rose_from_the_start(facts: Facts, best: int) -> str:
    """That nothing was learned; of a loss that only rises, nothing tells overfitting from divergence."""
    told = f"It did not learn: at no step is the loss {LEAST_CHANGE} nats lower than before SFT."
    last = max(facts.trained)
    rise = facts.losses[last] - facts.losses[best]
    if rise < LEAST_CHANGE:
        return told
    return f"{told} From step {best} to step {last} it rises by {rise:.3f} nats."


def _overfits(facts: Facts, best: int, last: int) -> str:
    if not _is_better(facts, best):
        return ""
    rise = _rise(facts.losses, facts.sample_losses, facts.level)
    if rise is None:
        return f"No overfitting shows up to step {last}." if len(facts.losses) > 1 else ""
    if rise.is_certain:
        return f"It overfits after step {best}: to step {last} the loss rises {rise}."
    return (
        f"Whether it overfits cannot be told: from step {best} to step {last} the loss changes {rise}, "
        "which may be chance."
    )


def _judge_interactions(facts: Facts) -> str:
    last = facts.steps[-1]
    before = facts.value(facts.steps[0], "preserved", "count")
    removed, emerged = (
        facts.value(last, label, "count") or 0.0 for label in ("removed", "emerged")
    )
    if not before:
        return (
            "No verdict on the interactions: before SFT there are none in these "
            f"{facts.n_samples} prompts."
        )
    floor = facts.value(last, "removed", "churn_floor")
    gone, low = facts.removed_where_covered(last)
    noise = ""
    if floor is not None and facts.covered is None:
        noise = f" (noise of the inference alone: {floor:.1f})"
    elif floor is not None and gone is not None:
        which = f"in the {_number(facts.n_covered, 'prompt')} on which noise was tried"
        noise = f" ({which}: {gone:.1f}, and by noise of the inference alone {floor:.1f})"
    told = (
        f"Of {before:.1f} interactions a prompt before SFT, {removed:.1f} are gone by step {last}{noise}, "
        f"and {emerged:.1f} are new."
    )
    if floor is None:
        return told
    n = facts.n_samples if facts.covered is None else facts.n_covered
    if n < FEWEST_SAMPLES:
        prompts = _number(n, "prompt")
        return f"{told} Whether that is more than noise would do cannot be told from {prompts}."
    if low is None or low <= floor:
        return f"{told} That cannot be told from what noise alone would do."
    return told


def _judge_stage(facts: Facts) -> str:
    reasons = list(_too_little(facts))
    if reasons:
        return f"No verdict on the stages: {'; '.join(reasons)}."
    stage = facts.stage
    if stage.step is not None:
        spread = f"{stage.low} to {stage.high}"
        if (stage.low, stage.high) == (facts.steps[1], facts.steps[-2]):
            return (
                "No verdict on the stages: the rate at which interactions are lost falls, but where "
                f"cannot be told ({spread}, all that is possible)."
            )
        return (
            f"The rate at which interactions are lost falls after step {stage.step} ({spread}): there the "
            "denoising stage ends. This chooses no checkpoint."
        )
    if stage.answer == LAST:
        return "Up to the last checkpoint more interactions are lost than are new: denoising has not ended."
    if stage.answer == NONE:
        return "The rate at which interactions are lost does not fall: there is no denoising stage."
    return (
        "No verdict on the stages: whether the rate at which interactions are lost falls cannot be "
        f"told from {_prompts(facts)}."
    )


def _too_little(facts: Facts) -> Iterator[str]:
    if len(facts.steps) < FEWEST_CHECKPOINTS:
        yield f"{len(facts.steps)} checkpoints, and {FEWEST_CHECKPOINTS} are needed"
    if facts.n_samples < FEWEST_SAMPLES:
        yield f"{_prompts(facts)}, and {FEWEST_SAMPLES} are needed"


def _prompts(facts: Facts) -> str:
    return _number(facts.n_samples, "prompt")


def _number(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def write_page(facts: Sequence[Facts], verdicts: Sequence[Verdict]) -> str:
    """The verdicts as Markdown, each with the numbers that it rests on."""
    blocks = ["# Verdict"]
    for run, verdict in zip(facts, verdicts, strict=True):
        marked = replace(verdict, checkpoint=f"**{verdict.checkpoint}**")
        blocks += [
            f"## {_inert(run.title)}",
            "\n".join(f"- {sentence}" for sentence in marked.sentences),
            _table_of(run),
            f"{_prompts(run)}, {run.n_players} masked {run.players} each; means a prompt. Before "
            f"SFT: step {run.steps[0]}. Loss: {run.whose_losses}{_number_of_responses(run)}, in nats a "
            "token; 0 is best, and exp(-loss) is the probability that a right token gets (geometric mean).",
            f"An interaction is an effect of {run.players} that act together on the answer "
            "(docs/glossary.md). One that was lost and has come back counts as new, so the columns do not "
            f"add up.{_why_blank(run)}",
            f"What the model reads of the first prompt, up to {_scored(run)}:",
            _fenced(f"\n{run.read[0]}\n", "```"),
        ]
    blocks.append(
        "How these sentences are made: docs/verdict.md. The checkpoint is that of the lowest validation "
        "loss because interactions chose worse ones in a study (docs/stopping.md)."
    )
    return "\n\n".join(blocks) + "\n"


def _number_of_responses(run: Facts) -> str:
    if run.sample_losses is None:
        return ""
    return f" ({run.sample_losses['sample_id'].n_unique()} of them)"


def _scored(run: Facts) -> str:
    """The scored token, and what it is a part of, where there are such prompts."""
    _, token, response = run.read
    told = f"the token {_fenced(token, '`')}"
    if not run.n_parts:
        return told
    return (
        f"{told} of the response {_fenced(_cut(response), '`')} (in {run.n_parts} of {run.n_samples} "
        "prompts the scored token is a part of the response, so the interactions are those of its "
        "beginning; `inference.target_tokens: all` scores the whole response)"
    )


def _cut(text: str) -> str:
    """The beginning of a text, on one line."""
    line = " ".join(text.split())
    return line if len(line) <= RESPONSE_SHOWN else f"{line[:RESPONSE_SHOWN]} …"


def _inert(text: str) -> str:
    """A text as Markdown shows it as it is."""
    return "".join(f"\\{c}" if c in r"\`*_{}[]<>()#|$~" else c for c in " ".join(text.split()))


def _fenced(text: str, fence: str) -> str:
    """A text as code, between more marks than it has in a row itself."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    marks = "`" * max(len(fence), longest + 1)
    return f"{marks}{text}{marks}"


def _why_blank(facts: Facts) -> str:
    """Why the table has rows without interactions, if it has some."""
    is_blank = not {*facts.losses} <= {*facts.steps}
    return " Where they are blank, the loss alone is known." if is_blank else ""


def _table_of(facts: Facts) -> str:
    lines = [
        "| step | there before SFT and still | gone | new | loss |",
        "| --: | --: | --: | --: | --: |",
    ]
    for step in sorted({*facts.steps, *facts.losses}):
        counts = [
            facts.value(step, label, "count") for label in ("preserved", "removed", "emerged")
        ]
        cells = ["" if count is None else f"{count:.1f}" for count in counts]
        loss = facts.losses.get(step)
        cells.append("" if loss is None else f"{loss:.3f}")
        lines.append(f"| {step} | {' | '.join(cells)} |")
    return "\n".join(lines)
