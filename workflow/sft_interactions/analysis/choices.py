"""Which other choices the findings are tested under, and how jobs share them out.

The rules of the workflow read this module in an environment with Snakemake alone, so it needs nothing but
the standard library.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sft_interactions.analysis.salience import Salience

# Which of the equally sparse optima is looked at, see `readings`.
SINGLE, CERTAIN, JOINT = READINGS = ("single", "certain", "joint")
# The two models that a reference run has to offer; figures and tables show these names.
BEFORE_SFT, TUNED = "before SFT", "tuned"
OWN_JOB = "own"
# Labels of two kinds of choices.
TIE_BREAK, READING = "tie-break", "reading"
# What an extraction depends on, and the reading, which costs as much.
_COSTLY = ("noise_ratio", "noise_scale", "tie_break", "reading", "mask_embedding")


@dataclass(frozen=True)
class Choice:
    """One way to analyse a run; the defaults are the paper's or, where it leaves a choice open, ours.

    Attributes:
        salience: rule and threshold.
        noise_ratio: ζ of the extraction.
        noise_scale: what ζ is a share of, see
            :func:`~sft_interactions.extraction.program.noise_bounds`; the churn floor's noise is too.
        tie_break: tie-break of the extraction.
        gamma: metric that is taken for γ: ``gamma`` (by strength) or ``gamma_by_count``.
        removed_effect: effect of a removed interaction: ``first``, the one before SFT, or
            ``last_present``, the one at the last checkpoint before t at which it was salient.
        reference_model: ``before SFT``, or ``tuned``, at its last checkpoint.
        mask_embedding: embedding of a masked word, see
            :func:`~sft_interactions.masking.mask_embedding.make_mask_embedding`.
        reading: one of ``READINGS``.
    """

    salience: "Salience"
    noise_ratio: float
    noise_scale: str = "sample"
    tie_break: str = "canonical"
    gamma: str = "gamma"
    removed_effect: str = "first"
    reference_model: str = BEFORE_SFT
    mask_embedding: str = "token"
    reading: str = SINGLE


def choices(
    own: Choice,
    salience: "Sequence[Salience]",
    noise_ratios: Sequence[float],
    noise_scales: Sequence[str],
    tie_breaks: Sequence[str],
    mask_embeddings: Sequence[str],
    *,
    has_reference: bool,
    has_readings: bool,
    is_reference_base: bool = False,
) -> dict[str, Choice]:
    """The study's own choice and, one at a time, the others, by name.

    Args:
        own: the study's own choice.
        salience: rules and thresholds.
        noise_ratios: ζ of the extraction.
        noise_scales: noise scales of the extraction.
        tie_breaks: tie-breaks of the extraction.
        mask_embeddings: embeddings of a masked word.
        has_reference: there is a reference model, so the choices about γ apply.
        is_reference_base: the reference model before SFT is the run's own, so that it is no choice.
        has_readings: the readings apply: they do not where the study's salience rule is ``stable``, whose
            interactions are already a choice of what the data determine.
    """
    found = {"the study's own": own}
    for rule in salience:
        if (rule["rule"], rule["threshold"]) != (own.salience["rule"], own.salience["threshold"]):
            name = f"salience: {rule['rule']} {_shown(rule['threshold'])}"
            found[name] = replace(own, salience=rule)
    varied: list[tuple[str, str, Sequence[Any]]] = [
        ("noise bound ζ", "noise_ratio", noise_ratios),
        ("noise scale", "noise_scale", noise_scales),
        (TIE_BREAK, "tie_break", tie_breaks),
        (READING, "reading", READINGS if has_readings else ()),
        ("mask embedding", "mask_embedding", mask_embeddings),
    ]
    for label, setting, values in varied:
        for value in values:
            if value != getattr(own, setting):
                found[f"{label}: {_shown(value)}"] = replace(own, **{setting: value})
    found["removed effect: last present"] = replace(own, removed_effect="last_present")
    if has_reference:
        found["γ: by count"] = replace(own, gamma="gamma_by_count")
        other = TUNED if own.reference_model == BEFORE_SFT else BEFORE_SFT
        if other != BEFORE_SFT or not is_reference_base:
            found[f"reference model: {other}"] = replace(own, reference_model=other)
    return found


def share_out(tested: Mapping[str, Choice]) -> dict[str, dict[str, Choice]]:
    """The choices by job: one has all that the study's own extraction and reading are enough for.

    Args:
        tested: name to choice, the study's own first, see :func:`choices`.

    Returns:
        Job, a name that can be part of a file name, to some of ``tested`` in their order. The name depends
        on the choices of the job and on the study's own alone: ``own``, ``noise-ratio-0.02``,
        ``tie-break-hash-1``, ``reading-joint``.
    """
    own = next(iter(tested.values()))
    jobs: dict[str, dict[str, Choice]] = {}
    for name, choice in tested.items():
        jobs.setdefault(_job_of(choice, own), {})[name] = choice
    return jobs


def _job_of(choice: Choice, own: Choice) -> str:
    differing = [part for part in _COSTLY if getattr(choice, part) != getattr(own, part)]
    named = [f"{part.replace('_', '-')}-{_shown(getattr(choice, part))}" for part in differing]
    return "-".join(named) or OWN_JOB


def _shown(value: float | str) -> str:
    """A setting as names show it, all its digits, so that no two have one name."""
    if isinstance(value, str):
        return value
    short = f"{value:g}"
    return short if float(short) == value else repr(value)
