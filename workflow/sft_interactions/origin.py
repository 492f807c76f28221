"""Where a table comes from: its run and checkpoint, the prompts of the run, and all that it depends on.

Each table notes the digests of what it was made of, which note theirs: a chain up to weights and samples.
Before a job reads tables, the chain of each is compared with what is there, so that a table of another
fine-tuning, under the name of this one, stops it.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import polars as pl

from sft_interactions import tables
from sft_interactions.files import content_digest
from sft_interactions.models.checkpoint_files import folder_digest

_REBUILD = "delete it and run snakemake again to rebuild it"
_TABLES = (".parquet", ".json")
_SHOWN = 12  # digits of a digest in messages


def digest_prompts(prompts: pl.DataFrame) -> str:
    """Digest of the samples, tokens and players of a table of prompts, 16 hexadecimal digits."""
    rows = prompts.select("sample_id", "token_ids", "player_of_token", "target_token_ids")
    return hashlib.sha256(rows.sort("sample_id").write_json().encode()).hexdigest()[:16]


def inputs_digest(
    settings: Mapping[str, Any],
    files: Iterable[str | Path],
    root: str | Path,
    cache: str | Path | None = None,
) -> str:
    """Digest of what a table depends on: settings, and the contents of the files that it is made of.

    A table is known by the digest in its metadata; a file of weights by ``SHA256SUMS`` beside it, which is
    compared with the weights when they are loaded, or else by its content.

    Args:
        settings: what the rows depend on beside files, as JSON can hold it.
        files: inputs of the job, in an order that matters; folders are those of a model, or of checkpoints.
            What lies outside of ``root`` is not looked at: its content belongs to the settings.
        root: the results folder.
        cache: see :func:`~sft_interactions.files.content_digest`.

    Returns:
        16 hexadecimal digits.

    Raises:
        ValueError: a file cannot be read.
    """
    inside = [path for path in map(Path, files) if tables.place_below(path, root) is not None]
    text = json.dumps([settings, [_digest_of(path, cache) for path in inside]], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _digest_of(path: Path, cache: str | Path | None) -> str:
    if path.is_dir():
        return folder_digest(path, cache)
    if path.suffix in _TABLES:
        written = tables.written_metadata(path).get(tables.DIGEST_KEY)
        if written is not None:  # tables of older versions have none
            return written
    return content_digest([path])


def made_of(
    files: Iterable[str | Path], root: str | Path, cache: str | Path | None = None
) -> dict[str, str]:
    """Digests of the tables and the folders of weights among some files.

    A table is known by the digest that it has of its file, weights as for :func:`inputs_digest`.

    Args:
        files: inputs of a job. What lies outside of ``root`` is left out.
        root: the results folder.
        cache: see :func:`~sft_interactions.files.content_digest`.

    Returns:
        Place below ``root`` to digest, by place.

    Raises:
        ValueError: a file cannot be read.
    """
    found = {}
    for path in map(Path, files):
        place = tables.place_below(path, root)
        if place is not None and (path.suffix in _TABLES or path.is_dir()):
            found[place] = _digest_of(path, cache)
    return dict(sorted(found.items()))


def note_of_page(files: Iterable[str | Path], root: str | Path) -> str:
    """The last line of a page, a comment with one digest of all that it was made of."""
    digest = hashlib.sha256(json.dumps(made_of(files, root)).encode()).hexdigest()[:32]
    return f"<!-- made of {digest} -->\n"


def check_page(page: str | Path, files: Iterable[str | Path], root: str | Path) -> bool:
    """Compare what a page was made of with what is there.

    Args:
        page: a Markdown file that ends with :func:`note_of_page` of these files.

    Returns:
        False for a page of an older version, which does not tell it.

    Raises:
        ValueError: it was made of other files.
    """
    *_, last = Path(page).read_text("utf-8").splitlines(keepends=True) or [""]
    if not last.startswith("<!-- made of "):
        return False
    expected = note_of_page(files, root)
    if last != expected:
        raise ValueError(
            f"{page}: this was made of tables {last[13:-5]}, and those that are there are "
            f"{expected[13:-5]}, so it is of another fine-tuning, study or config; make it anew with "
            f"{_command(Path(page))}"
        )
    return True


def training_digest(run: Mapping[str, Any]) -> str:
    """Digest of how a run of the config is fine-tuned, its seed included, 16 hexadecimal digits."""
    settings = [run["finetune"], run["seed"]]
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


def check_sources(
    files: Iterable[str | Path],
    root: str | Path,
    *,
    cache: str | Path | None = None,
    runs: Mapping[str, Mapping[str, Any]] | None = None,
) -> list[Path]:
    """Compare what tables were made of with what is there, up to weights and samples.

    What is not there any more is left out. Of tables that are not among ``files`` metadata alone are read.

    Args:
        files: inputs of a job: tables, ``stages.json``, figures (svg). Folders stand for the tables in
            them, or are those of models and checkpoints; what lies outside of ``root`` is not looked at.
        root: the results folder.
        cache: see :func:`~sft_interactions.files.content_digest`.
        runs: the runs of the config. Those that bring their checkpoints have no training here that could
            tell what they are.

    Returns:
        Tables that do not tell what they were made of, which are those of older versions.

    Raises:
        ValueError: a table was made of something else than what lies in its place, or a training is of
            other settings or checkpoints.
    """
    chain = _Chain(Path(root), cache, runs)
    for path in map(Path, files):
        chain.follow(path)
    return chain.untold


class _Chain:
    """What some tables were made of, looked at once each, sources first."""

    def __init__(
        self,
        root: Path,
        cache: str | Path | None,
        runs: Mapping[str, Mapping[str, Any]] | None,
    ) -> None:
        self.root, self.cache, self.runs = root, cache, runs
        self.untold: list[Path] = []
        self._digests: dict[str, str] = {}
        self._seen: set[str] = set()

    def follow(self, path: Path) -> None:
        place = tables.place_below(path, self.root)
        if place is None or place in self._seen:
            return
        self._seen.add(place)
        if path.is_dir():
            for table in sorted(path.glob("*.parquet")):
                self.follow(table)
            self._follow_training(place)
        elif path.suffix in (*_TABLES, ".svg"):
            self._compare(path, place)

    def _follow_training(self, place: str) -> None:
        """Of checkpoints that were trained here, follow the table that was written with them."""
        match place.split("/"):
            case ["runs", run, "checkpoints", *_] if self._is_tuned(run):
                training = self.root / "runs" / run / "training.parquet"
                if training.is_file():
                    self.follow(training)

    def _is_tuned(self, run: str) -> bool:
        return self.runs is None or "checkpoints" not in self.runs.get(run, {"checkpoints": {}})

    def _compare(self, path: Path, place: str) -> None:
        metadata = tables.written_metadata(path)
        _check_place(path, place, metadata)
        if tables.MADE_OF not in metadata:
            self.untold.append(path)
            return
        self._compare_all(path, metadata[tables.MADE_OF], "was made of")
        self._compare_prompts(path, place, metadata)
        if tables.CHECKPOINTS in metadata:
            self._compare_all(path, metadata[tables.CHECKPOINTS], "was written with")
            self._compare_training(path, tables.run_of(place), metadata)

    def _compare_all(self, path: Path, noted: str, relation: str) -> None:
        for place, digest in json.loads(noted).items():
            source = self.root / place
            if not source.exists():
                continue
            self.follow(source)
            if place not in self._digests:
                self._digests[place] = _digest_of(source, self.cache)
            found = self._digests[place]
            if found != digest:
                raise ValueError(
                    f"{path}: this {relation} {place} {digest[:_SHOWN]}, and {source} is {found[:_SHOWN]}, "
                    "so one of them is of another fine-tuning, study or config; make the first anew with "
                    f"{_command(path)}"
                )

    def _compare_prompts(self, path: Path, place: str, metadata: Mapping[str, str]) -> None:
        # Log-odds do not note the file, of which they need less than it has.
        run, digest = tables.run_of(place), metadata.get(tables.PROMPTS_DIGEST)
        prompts = self.root / "runs" / (run or "") / "prompts.parquet"
        if run is None or digest is None or prompts == path or not prompts.is_file():
            return
        self.follow(prompts)
        found = tables.written_metadata(prompts).get(tables.PROMPTS_DIGEST, digest)
        if found != digest:
            raise ValueError(
                f"{path}: this table comes of other prompts ({digest[:_SHOWN]}) than {prompts} "
                f"({found[:_SHOWN]}), so one of them is of another study or of an older config; make the "
                f"table anew with {_command(path)}"
            )

    def _compare_training(self, path: Path, run: str | None, metadata: Mapping[str, str]) -> None:
        digest = metadata.get(tables.TRAINING_DIGEST, "")
        if run is None or self.runs is None or not self._is_tuned(run):
            return
        expected = training_digest(self.runs[run])
        if digest != expected:
            raise ValueError(
                f"{path}: this is of a training with other settings or another seed ({digest[:_SHOWN]}) "
                f"than run {run} of the config ({expected[:_SHOWN]}); make it and its checkpoints anew "
                f"with {_command(path)}"
            )


def _check_place(path: Path, place: str, metadata: Mapping[str, str]) -> None:
    """Refuse a file that was written to another place of a results folder."""
    written = metadata.get(tables.PLACE, place)
    if written != place:
        raise ValueError(
            f"{path}: this table was written as {written} of a results folder; put the right one "
            f"here, or {_REBUILD}"
        )


def _command(path: Path) -> str:
    return f"snakemake --cores 1 --force {path} and the other options of this run"


def check_inputs(files: Iterable[str | Path], root: str | Path) -> dict[str, str]:
    """Check the tables that a job is about to read, and tell what prompts they come of.

    Args:
        files: inputs of the job; folders stand for the tables in them. What lies outside of ``root`` is not
            looked at.
        root: the results folder.

    Returns:
        Run to the digest of its prompts, of those runs whose tables tell it.

    Raises:
        ValueError: a table is damaged, was written as another one, or comes of other prompts than another
            table of its run.
    """
    known: dict[str, tuple[str, Path]] = {}
    for path in _tables(files):
        place = tables.place_below(path, root)
        if place is None:
            continue
        metadata = tables.read_metadata(path)
        _check_place(path, place, metadata)
        run, prompts = tables.run_of(place), metadata.get(tables.PROMPTS_DIGEST)
        if run is None or prompts is None:
            continue
        digest, first = known.setdefault(run, (prompts, path))
        if digest != prompts:
            raise ValueError(
                f"{path}: this table comes of other prompts than {first}, so one of them is of another "
                f"study or of an older config; {_REBUILD}, or that one"
            )
    return {run: digest for run, (digest, _) in known.items()}


def _tables(files: Iterable[str | Path]) -> Iterable[Path]:
    for path in map(Path, files):
        if path.suffix == ".parquet":
            yield path
        elif path.is_dir():
            yield from sorted(path.glob("*.parquet"))
