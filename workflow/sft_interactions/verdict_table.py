"""The table of the verdicts, as the end of a run and the page of a study read it.

Imports the standard library only.
"""

import csv
import io
import re
from pathlib import Path

# The sentences of a verdict in their order, by the names of attributes and columns.
SENTENCES = ("checkpoint", "learning", "interactions", "stage")
COLUMNS = ("run", "kept_step", *SENTENCES)


def read(table: str | Path, page: str | Path) -> list[dict[str, str]]:
    """Rows of ``tables/verdict.csv``, whose sentences must be those of ``verdict.md``.

    People open tables in programs that save them otherwise, and Snakemake does not see it.

    Args:
        table: the csv.
        page: the Markdown that was written with it.

    Returns:
        One row a run, with the columns ``COLUMNS``; what is empty is an empty text.

    Raises:
        ValueError: one of the two was changed since.
    """
    table, page = Path(table), Path(page)
    try:
        told = page.read_text("utf-8")
        rows = list(csv.DictReader(io.StringIO(table.read_text("utf-8-sig"), newline="")))
    except UnicodeDecodeError:
        raise _changed(table, page) from None
    place = 0
    for row in rows:
        if set(row) != set(COLUMNS) or None in row.values():
            raise _changed(table, page)
        kept = re.match(r"Keep step (\d+)\b", row["checkpoint"])
        if row["kept_step"] != (kept[1] if kept else ""):
            raise _changed(table, page)
        for sentence in filter(None, map(row.get, SENTENCES)):
            place = told.find(sentence, place)
            if place < 0:
                raise _changed(table, page)
    if not rows:
        raise _changed(table, page)
    return rows


def _changed(table: Path, page: Path) -> ValueError:
    return ValueError(
        f"{table}: its sentences are not those of {page}, so one of the two was changed since they were "
        "written; delete both, and run snakemake again to rebuild them"
    )
