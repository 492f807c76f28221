"""The dates of the folders that rules make: those of what they hold, not of a copy or a ``touch``.

Snakemake compares the contents of files, but of folders the date alone, which is that of a file
``.snakemake_timestamp`` in them. Imports the standard library only.
"""

import json
import os
import time
from collections.abc import Collection, Iterable
from pathlib import Path

from sft_interactions.models.checkpoint_files import folder_digest
from sft_interactions.orphans import PARTIAL

_STAMP = ".snakemake_timestamp"
_LONG_AGO = 946_684_800 * 10**9  # the first second of the year 2000, in nanoseconds


def keep_dates(
    folders: Iterable[str | Path],
    note: str | Path,
    cache: str | Path | None = None,
    *,
    settled: Collection[str | Path] = (),
) -> None:
    """Give folders the date back that they had when they were first seen with the same content.

    A folder that holds something else than before, but is not newer, gets the present date, so that what
    was made of it is made anew.

    Args:
        folders: models and checkpoints that rules made; those that are not there, or not whole, are left
            out.
        note: a JSON file that has each folder's digest and date; made if it is missing. To be called at the
            start of a run, before any job, and at its end.
        cache: see :func:`~sft_interactions.files.content_digest`.
        settled: those of the folders of which all that was ever made is made of what they hold now. Their
            dates are then older than any, so that it stays done if its own dates get lost too.

    Raises:
        ValueError: a file cannot be read, or the date of one that is another now cannot be set.
    """
    note = Path(note)
    known, settled_names = _read(note), set(map(str, settled))
    found: dict[str, tuple[str, int]] = {}
    for folder in map(Path, folders):
        stamp = folder / _STAMP
        if not stamp.is_file():
            continue
        digest, date = folder_digest(folder, cache), stamp.stat().st_mtime_ns
        before, known_date = known.get(str(folder), ("", 0))
        wanted = date
        if str(folder) in settled_names:
            wanted = _LONG_AGO
        elif before == digest:
            wanted = known_date
        elif before and date <= known_date:
            wanted = time.time_ns()
        try:
            if wanted != date:
                os.utime(stamp, ns=(wanted, wanted))
        except PermissionError as error:  # the results are another user's
            if before != digest:
                raise ValueError(
                    f"{folder}: holds something else than before, but its date cannot be set "
                    f"({error.strerror}); work as the owner of the results, or on a copy of them"
                ) from error
            wanted = date
        found[str(folder)] = (digest, wanted)
    if any(known.get(folder) != entry for folder, entry in found.items()):
        _write(note, {**known, **found})


def _read(note: Path) -> dict[str, tuple[str, int]]:
    try:
        content = json.loads(note.read_text("utf-8"))
        return {str(folder): (str(digest), int(date)) for folder, (digest, date) in content.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}  # dates are then as they are


def _write(note: Path, content: dict[str, tuple[str, int]]) -> None:
    note.parent.mkdir(parents=True, exist_ok=True)
    temporary = note.with_name(f"{PARTIAL}{os.getpid()}-{note.name}")
    temporary.write_text(json.dumps(content), "utf-8")
    temporary.replace(note)
