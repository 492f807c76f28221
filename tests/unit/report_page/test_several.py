import base64
import gzip
import re
import sys
from dataclasses import replace

import polars as pl
import pytest
from odd_texts import TEXTS
from report_pages import cells_of, elements_of, text_of
from sample_tables import write

from sft_interactions import tables
from sft_interactions.analysis.findings import STATEMENTS
from sft_interactions.report_page import several
from sft_interactions.report_page.page import build

RUN = "a-run"
VERDICTS = ["supported", "contradicted", "inconclusive", "supported", "inconclusive"]


def finish(place, folder, pages, title="A study"):
    """The results of a study whose page is made: the page, and the tables beside it."""
    (place / "tables").mkdir(parents=True)
    page = build(replace(pages.make_study(folder), title=title))
    (place / "report.html").write_text(page, "utf-8")
    verdict = pl.DataFrame({"run": [RUN], "kept_step": ["20"], **pages.sentences})
    verdict.write_csv(place / "tables" / "verdict.csv")
    (place / "verdict.md").write_text("\n".join(pages.sentences.values()), "utf-8")
    protocol = pl.DataFrame(
        {
            "run": RUN,
            "finding": list(STATEMENTS),
            "statement": list(STATEMENTS.values()),
            "denoising_ends": "20",
            "verdict": VERDICTS,
            "parts_supported": 1,
            "parts_contradicted": 0,
            "parts": 3,
            "as_published": VERDICTS[::-1],
        },
        schema=tables.PROTOCOL.columns,
    )
    write(protocol, place / "protocol.parquet", tables.PROTOCOL)
    return place / "report.html"


@pytest.fixture
def two(tmp_path, folder, pages):
    return [
        finish(tmp_path / name, folder, pages, title)
        for name, title in (("one", "A study"), ("other", "Another study"))
    ]


def test_the_verdicts_of_all_studies_come_first(two, pages):
    page = several.join([several.read_page(path) for path in two])
    text = text_of(page)
    for sentence in pages.sentences.values():
        assert text.count(sentence) == 2
    assert text.index("Another study") < text.index("The findings of the paper")
    cells = cells_of(page)
    for place, (own, published) in enumerate(zip(VERDICTS, VERDICTS[::-1], strict=True)):
        row = cells.index("A study")
        assert cells[row + 3 + place] == f"{own}({published})"
    assert cells.count("20") == 2


def test_every_page_is_in_it_as_it_was_and_may_run_its_script(two):
    page = several.join([several.read_page(path) for path in two])
    packed = [
        e["text"]
        for e in elements_of(page)
        if e["attributes"].get("id", "").startswith("packed-study-")
    ]
    texts = [gzip.decompress(base64.b64decode(one)).decode() for one in packed]
    assert texts == [path.read_text("utf-8") for path in two]
    policy = next(
        e["attributes"]["content"]
        for e in elements_of(page)
        if e["attributes"].get("http-equiv") == "Content-Security-Policy"
    )
    allowed = set(re.findall(r"'(sha256-[^']+)'", policy))
    inner = set(re.findall(r"'(sha256-[^']+)'", texts[0]))
    assert inner < allowed
    assert len(allowed) == 2
    assert "default-src 'none'" in policy
    assert "http" not in policy


@pytest.mark.parametrize("title", [*TEXTS.values(), "</title><script>alert(1)</script>"])
def test_a_title_is_no_markup(tmp_path, folder, pages, title):
    path = finish(tmp_path / "one", folder, pages, title)
    found = several.read_page(path)
    assert " ".join(found.title.split()) == " ".join(title.split())
    scripts = [e for e in elements_of(several.join([found])) if e["tag"] == "script"]
    assert len(scripts) == 2


def test_what_is_no_page_of_a_finished_study_is_refused(two, monkeypatch, capsys):
    one, other = two
    found = several.read_page(one)
    with pytest.raises(ValueError, match=r"report\.html: this page is given twice; name it once"):
        several.join([found, found])
    with pytest.raises(ValueError, match="no page of a study is given"):
        several.join([])
    (other.parent / "tables" / "verdict.csv").write_text("run\n")
    with pytest.raises(ValueError, match=r"verdict\.csv: its sentences are not those of"):
        several.read_page(other)
    (other.parent / "protocol.parquet").unlink()
    with pytest.raises(FileNotFoundError, match=r"protocol\.parquet: there is no such file; give"):
        several.read_page(other)
    one.write_text("<title>mine</title>")
    with pytest.raises(ValueError, match=r"report\.html: this is no page of a study; make it"):
        several.read_page(one)
    output = one.parent / "several.html"
    monkeypatch.setattr(sys, "argv", ["several", str(one), "--output", str(output)])
    assert several.main() == 1
    assert capsys.readouterr().err.count("\n") == 1
    assert not output.exists()


def test_the_command_writes_the_file(two, tmp_path, monkeypatch):
    output = tmp_path / "several.html"
    monkeypatch.setattr(sys, "argv", ["several", *map(str, two), "--output", str(output)])
    assert several.main() == 0
    assert output.read_text("utf-8") == several.join([several.read_page(path) for path in two])
