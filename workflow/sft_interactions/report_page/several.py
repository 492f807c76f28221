"""The pages of several studies as one HTML file: what came out of all of them first, then each as it is.

    python -m sft_interactions.report_page.several results/report.html results/seeds/report.html \
        --output several.html

A page lies in the results folder of its study, with the tables that are read here. Each page is packed into
the file and opened in a frame. The browser holds it to the rules of this file, so that it may load no more
than by itself.
"""

import argparse
import html
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from sft_interactions import tables, verdict_table
from sft_interactions.report_page.page import FOLDER, digest_of_script, pack, template

_TITLE = re.compile(r"<title>(.*?)</title>", re.DOTALL)
_DIGEST = re.compile(r"script-src '(sha256-[A-Za-z0-9+/=]+)' blob:")


@dataclass(frozen=True)
class Verdict:
    """What the tables of a study say of a run.

    Attributes:
        run: its name.
        sentences: of the verdict, those that are empty left out.
        stage: where the denoising stage ends, as of docs/protocol.md; None without the table.
        findings: (number, verdict by the protocol, verdict as published).
    """

    run: str
    sentences: Sequence[str]
    stage: str | None
    findings: Sequence[tuple[int, str, str]]


@dataclass(frozen=True)
class Page:
    """The page of a study, and what is read beside it.

    Attributes:
        title: of the study.
        place: where the page lies.
        script: digest of its script, as the content policy names it.
        packed: the page itself.
        verdicts: of its runs.
    """

    title: str
    place: str
    script: str
    packed: str
    verdicts: Sequence[Verdict]


def read_page(path: str | Path) -> Page:
    """A page and the verdicts of its study.

    Args:
        path: the page, in the results folder of its study.

    Raises:
        FileNotFoundError: the page or a table beside it is not there.
        ValueError: the file is no page of a study, or a table was changed.
    """
    path = Path(path)
    folder = path.parent
    needed = [
        path,
        folder / "tables" / "verdict.csv",
        folder / "verdict.md",
        folder / "protocol.parquet",
    ]
    for file in needed:
        if not file.is_file():
            raise FileNotFoundError(
                f"{file}: there is no such file; give report.html in the results folder of a finished "
                "study (snakemake report)"
            )
    text = path.read_text("utf-8")
    title, digest = _TITLE.search(text), _DIGEST.search(text)
    if title is None or digest is None:
        raise ValueError(f"{path}: this is no page of a study; make it with snakemake report")
    protocol = tables.read(folder / "protocol.parquet", tables.PROTOCOL).sort("finding")
    verdicts = []
    for row in verdict_table.read(folder / "tables" / "verdict.csv", folder / "verdict.md"):
        of_run = protocol.filter(run=row["run"])
        findings = of_run.select("finding", "verdict", "as_published").rows()
        stage = next(iter(of_run["denoising_ends"].to_list()), None)
        sentences = [row[name] for name in verdict_table.SENTENCES if row[name]]
        verdicts.append(Verdict(row["run"], sentences, stage, findings))
    return Page(html.unescape(title[1]), path.as_posix(), digest[1], pack(text), verdicts)


def join(pages: Sequence[Page]) -> str:
    """One HTML file of several pages, which loads nothing from elsewhere.

    Raises:
        ValueError: there is no page, or one is there twice.
    """
    places = [page.place for page in pages]
    if not places:
        raise ValueError("no page of a study is given; name one report.html or more")
    if len(set(places)) < len(places):
        twice = next(place for place in places if places.count(place) > 1)
        raise ValueError(f"{twice}: this page is given twice; name it once")
    script = (FOLDER / "several.js").read_text("utf-8")
    own = digest_of_script(script)
    return template("several.html").render(
        pages=pages,
        findings=sorted(
            {one for page in pages for run in page.verdicts for one, *_ in run.findings}
        ),
        # A frame inherits these rules, so that the scripts of the pages are named here too.
        scripts=Markup(
            " ".join(f"'{one}'" for one in sorted({own, *(page.script for page in pages)}))
        ),
        style=Markup((FOLDER / "page.css").read_text("utf-8")),
        script=Markup(script),
    )


def main() -> int:
    """Read the pages that are named, and write the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pages", nargs="+", type=Path, help="report.html of each study")
    parser.add_argument("--output", type=Path, required=True, help="the file that is written")
    options = parser.parse_args()
    try:
        text = join([read_page(page) for page in options.pages])
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    with tables.replacing(options.output) as temporary:
        temporary.write_text(text, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
