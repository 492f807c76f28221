import base64
import hashlib
import re
import shutil
from dataclasses import replace
from importlib.metadata import distribution
from pathlib import Path

import polars as pl
import pytest
from odd_texts import TEXTS
from report_pages import cells_of, data_of, elements_of, packed_in, text_of
from sample_tables import SAMPLES, write

from sft_interactions import tables
from sft_interactions.analysis.findings import PARTS, STATEMENTS
from sft_interactions.report_page import page as page_module
from sft_interactions.report_page.page import build, split_numbers
from sft_interactions.report_page.records import Cost, Warned
from sft_interactions.report_page.wording import WORDS

NASTY = {
    **TEXTS,
    "the end of a script": "</script><script>alert(1)</script><!-- <script>",
    "an image": '<img src="https://example.org/x.png" onerror="alert(1)">',
    "mathematics": r"$x^2$ \( \frac{1}{2} \) C:\new\table",
    "right to left": "שלום עולם مرحبا",
    "Chinese": "我喜欢这部电影",
    "a long text": "film " * 600,
    "line separators": "a\u2028b\u2029c",
    "entities": "&lt;b&gt; &amp;amp; '\"",
}


@pytest.fixture(scope="module")
def plain(folder, pages):
    return build(pages.make_study(folder))


def scripts_of(page):
    return [e for e in elements_of(page) if e["tag"] == "script"]


def test_the_page_is_well_nested_and_has_its_parts(plain):
    tags = [e["tag"] for e in elements_of(plain)]
    assert tags.count("h1") == tags.count("main") == tags.count("title") == 1
    ids = [e["attributes"]["id"] for e in elements_of(plain) if "id" in e["attributes"]]
    assert len(ids) == len(set(ids))
    assert {"answer", "figures", "findings", "explorer", "provenance"} <= set(ids)
    inner = {
        e["attributes"]["href"][1:]
        for e in elements_of(plain)
        if e["attributes"].get("href", "").startswith("#")
    }
    assert inner <= set(ids)


def test_the_script_finds_all_that_it_looks_for(plain):
    ids = {e["attributes"].get("id") for e in elements_of(plain)}
    script = scripts_of(plain)[-1]["text"]
    wanted = set(re.findall(r'byId\("([\w-]+)"\)', script))
    assert len(wanted) > 10
    assert wanted <= ids


def test_the_script_reads_only_what_the_data_have(plain):
    script = scripts_of(plain)[-1]["text"]
    (run,) = data_of(plain)["runs"]
    for name, having in (
        ("sample", run["samples"][0]),
        ("rows", run["rows"]),
        ("patterns", run["patterns"]),
        ("run", run),
    ):
        # Not what a table in the browser has, such as rows.add.
        read = set(re.findall(rf"\b{name}\.(\w+)\b(?!\()", script))
        assert read
        assert read <= set(having), name


def test_nothing_is_loaded_from_elsewhere(plain):
    """The policy forbids it to the browser; beside it, no element asks for it."""
    (policy,) = (
        e["attributes"]["content"]
        for e in elements_of(plain)
        if e["attributes"].get("http-equiv") == "Content-Security-Policy"
    )
    script = scripts_of(plain)[-1]["text"]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy.split("; ") == [
        "default-src 'none'",
        f"script-src 'sha256-{digest}' blob:",
        "style-src 'unsafe-inline'",
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
    ]
    for element in elements_of(plain):
        for name in ("src", "srcset", "action", "data", "poster"):
            assert element["attributes"].get(name, "data:").startswith("data:")
        if element["tag"] == "link":
            assert element["attributes"]["href"] == "data:,"
        if element["tag"] == "a":  # a file beside the page, or a place in it
            assert not re.match(r"\w+:|/", element["attributes"]["href"])
    (style,) = (e["text"] for e in elements_of(plain) if e["tag"] == "style")
    assert not re.search(r"url\(['\"]?(?!data:)|@import", style)


def test_the_verdict_comes_first_and_its_numbers_lead_to_their_table(plain, pages):
    text = text_of(plain)
    places = [text.index(sentence) for sentence in pages.sentences.values()]
    assert places == sorted(places)
    assert places[-1] < text.index("A title.")
    numbers = [
        e["text"]
        for e in elements_of(plain)
        if e["tag"] == "a" and e["attributes"].get("class") == "number"
    ]
    assert numbers == ["20", "0.250", "20", "300", "0.500", "3.5", "2.0", "300", "4", "5"]
    # Steps of the analysis and of the losses, with the counts of the metrics.
    rows = cells_of(plain)
    assert rows[rows.index("400") : rows.index("400") + 6] == ["400", "–", "–", "–", "–", "0.500"]
    assert " ".join(["0", "5", "0.625", "0.500 to 0.750", "2.5"]) in " ".join(rows)


def test_the_page_counts_the_prompts_that_are_analysed(plain, pages):
    """Some of those that were drawn may be left out, where tokens are players."""
    (samples,) = {len(run["samples"]) for run in data_of(plain)["runs"]}
    assert re.search(rf"prompts ?{samples}\b", text_of(plain))


def test_numbers_of_a_sentence():
    assert split_numbers("Of 3.5 in GPT2, step-20: 4.") == [
        ("Of ", False),
        ("3.5", True),
        (" in GPT2, step-", False),
        ("20", True),
        (": ", False),
        ("4", True),
        (".", False),
    ]
    assert split_numbers("") == []


def test_every_part_is_there_with_its_words_and_numbers(plain, folder, pages):
    assert set(WORDS) == {part.name for part in PARTS}
    cells = cells_of(plain)
    for row in pages.make_study(folder).parts.to_dicts():
        place = cells.index(row["part"])
        words, value, claim, verdict = cells[place + 1 : place + 5]
        assert words == WORDS[row["part"]] + row["statistic"]
        ends = [row[key] for key in ("value", "ci_low", "ci_high")]
        shown = ["–" if end is None else f"{end:.3f}" for end in ends]
        assert value == f"{shown[0]}{shown[1]} to {shown[2]}"
        assert claim == f"claim: {row['claim']}"
        assert verdict == row["verdict"]
    for finding, statement in STATEMENTS.items():
        assert f"Finding {finding}. {statement}" in text_of(plain)


def test_a_part_without_words_is_refused(folder, pages):
    parts = pages.make_study(folder).parts.with_columns(
        pl.col("part").replace("3.3 short", "3.4 new")
    )
    with pytest.raises(ValueError, match=r"finding_parts: the page has no words for 3.4 new; add"):
        build(pages.make_study(folder, parts=parts))


@pytest.mark.slow
@pytest.mark.parametrize("name", NASTY)
def test_a_text_of_the_data_is_no_markup_and_comes_back_as_it_was(
    tmp_path, folder, pages, plain, name
):
    text = NASTY[name]
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    for file, table, columns in (
        ("analysis", tables.DATA, ("prompt", "target")),
        ("prompts", tables.PROMPTS, ("target_text",)),
    ):
        rows = tables.read(tmp_path / f"{file}.parquet", table)
        changed = rows.with_columns(pl.lit(text).alias(column) for column in columns)
        write(changed, tmp_path / f"{file}.parquet", table)
    rendered = tables.read(tmp_path / "prompts.parquet", tables.PROMPTS)
    write(
        rendered.with_columns(pl.concat_str("rendered", pl.lit(text))),
        tmp_path / "prompts.parquet",
        tables.PROMPTS,
    )
    study = pages.make_study(
        tmp_path,
        label=text,
        title=text,
        warned=[Warned("a", "UserWarning", text, 2)],
        config=text,
        skipped=[("x", text, "3")],
    )
    page = build(study)
    assert tags_of(page) == tags_of(plain)
    titles = [e["text"] for e in elements_of(page) if e["tag"] in ("title", "h1")]
    assert [normal(title) for title in titles] == [normal(text)] * 2
    for sample in data_of(page)["runs"][0]["samples"]:
        assert (sample["text"], sample["target"], sample["scored"]) == (text,) * 3
        assert "".join(piece for piece, _ in sample["pieces"]).endswith(text)


def tags_of(page):
    """Tags of its elements, but for those of the lists of warnings and of what was left out."""
    return [e["tag"] for e in elements_of(page) if e["tag"] not in ("ul", "li", "bdi", "p")]


def normal(text):
    """A text as a browser's parser takes it from markup."""
    return text.replace("\r\n", "\n").replace("\r", "\n").replace("\x00", "\ufffd")


def test_the_libraries_are_packed_as_their_packages_carry_them(plain):
    for name, (package, place) in page_module.SCRIPTS.items():
        carried = Path(str(distribution(package).locate_file(place))).read_text("utf-8")
        assert packed_in(plain, name) == carried
        licence = distribution(package).metadata
        assert "MIT" in (licence["License-Expression"] or licence["License"])  # we pass it on


def test_the_same_study_gives_the_same_page(plain, folder, pages):
    assert build(pages.make_study(folder)) == plain


def test_the_page_is_small_enough(plain):
    # Two libraries, without any data or figures to speak of; the limit of a whole page is 8 MB.
    assert len(plain.encode()) < 3.5e6


@pytest.mark.slow
def test_costs_warnings_and_what_was_left_out_are_told(folder, pages, plain):
    for nothing in ("No run times are recorded", "hold no warning", "no sample that was left out"):
        assert nothing in text_of(plain)
    study = pages.make_study(
        folder,
        costs=[Cost("inference", 3, 12.34, 56.7), Cost("data", 1, 0.5, None)],
        warned=[
            Warned("finetune", "FutureWarning", "old", 2),
            Warned("data", "UserWarning", "x", 1),
        ],
        skipped=[("data/x.parquet", "too few words", "3")],
    )
    text, cells = text_of(build(study)), cells_of(build(study))
    place = cells.index("inference")
    assert cells[place : place + 8] == ["inference", "3", "12.3", "57", "data", "1", "0.5", "–"]
    assert "finetune: FutureWarning: old (2 times)" in text
    assert "data: UserWarning: x data/x" not in text
    assert "data/x.parquet: 3, too few words" in text


def test_figures_are_shown_with_their_captions_at_their_size(plain, folder):
    (image,) = (
        e["attributes"] for e in elements_of(plain) if e["attributes"].get("alt") == "A title."
    )
    assert (image["width"], image["height"]) == ("378", "252")  # 3 by 2 inches, 1.75 pixels a point
    kind, _, packed = image["src"].partition(",")
    assert kind == "data:image/svg+xml;base64"
    assert base64.b64decode(packed) == (folder / "fig1.svg").read_bytes()
    assert "A title. Runs: A run." in text_of(plain)


def test_a_file_that_is_no_figure_is_refused(tmp_path, folder, pages):
    study = pages.make_study(folder)
    (tmp_path / "fig1.svg").write_text("<svg>")
    figure = replace(study.figures[0], svg=tmp_path / "fig1.svg")
    with pytest.raises(ValueError, match=r"fig1.svg: this is no picture of matplotlib; delete it"):
        build(replace(study, figures=[figure]))


def test_samples_are_those_of_the_tables(plain):
    (run,) = data_of(plain)["runs"]
    assert [sample["id"] for sample in run["samples"]] == SAMPLES
