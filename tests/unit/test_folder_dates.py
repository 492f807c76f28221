"""A folder has the date of what it holds."""

import errno
import os
import shutil
import time

import pytest

from sft_interactions.folder_dates import keep_dates

DAY = 86_400 * 10**9


@pytest.fixture
def study(tmp_path):
    """A model and checkpoints, made yesterday; the function that is called when a run starts and ends."""
    model, checkpoints = tmp_path / "models" / "tiny", tmp_path / "runs" / "r" / "checkpoints"
    for folder, weights in ((model, "model"), (checkpoints / "step-0", "adapter_model")):
        folder.mkdir(parents=True)
        (folder / f"{weights}.safetensors").write_bytes(b"weights")
    for folder in (model, checkpoints):
        set_date(folder, time.time_ns() - DAY)
    folders = [model, checkpoints, tmp_path / "models" / "not-yet"]
    return model, checkpoints, lambda: keep_dates(folders, tmp_path / "kept" / "dates.json")


def set_date(folder, date):
    (folder / ".snakemake_timestamp").touch()
    os.utime(folder / ".snakemake_timestamp", ns=(date, date))


def date_of(folder):
    return (folder / ".snakemake_timestamp").stat().st_mtime_ns


@pytest.mark.parametrize("days", [-400, 0.5, 1, 30])
def test_the_same_content_keeps_its_date(study, days):
    model, checkpoints, keep = study
    before = {folder: date_of(folder) for folder in (model, checkpoints)}
    keep()
    assert before == {folder: date_of(folder) for folder in before}
    for folder in before:
        set_date(folder, date_of(folder) + int(days * DAY))
        other = shutil.copytree(folder, folder.with_name("other"))  # a copy that takes its place
        shutil.rmtree(folder)
        other.rename(folder)
        (folder / "README.md").write_text("what loading does not read")
    keep()
    assert before == {folder: date_of(folder) for folder in before}


@pytest.mark.parametrize("days", [-400, 0, 0.5])
def test_other_content_is_newer(study, days):
    model, checkpoints, keep = study
    keep()
    before = date_of(checkpoints), date_of(model)
    (checkpoints / "step-0" / "adapter_model.safetensors").write_bytes(b"another")
    set_date(checkpoints, before[0] + int(days * DAY))
    keep()
    assert date_of(checkpoints) > before[0]
    assert date_of(model) == before[1]
    after = date_of(checkpoints)
    keep()
    assert date_of(checkpoints) == after


def test_content_that_comes_back_is_newer_than_what_was_made_between(study):
    model, _, keep = study
    keep()
    for content in (b"another", b"weights"):
        before = date_of(model)
        (model / "model.safetensors").write_bytes(content)
        set_date(model, before + DAY // 4)
        keep()
        assert date_of(model) == before + DAY // 4


def test_what_is_settled_is_older_than_any_odd_date(study, tmp_path):
    model, checkpoints, _ = study
    note = tmp_path / "dates.json"
    before = date_of(checkpoints)
    keep_dates([model, checkpoints], note, settled=[str(model)])
    assert date_of(checkpoints) == before
    keep_dates([model, checkpoints], note, settled=[model, checkpoints])
    settled = date_of(model)
    assert settled < time.time_ns() - 9000 * DAY
    set_date(model, time.time_ns())
    keep_dates([model, checkpoints], note)
    assert date_of(model) == date_of(checkpoints) == settled
    (model / "model.safetensors").write_bytes(b"another")
    keep_dates([model, checkpoints], note)
    assert date_of(model) > time.time_ns() - DAY
    assert date_of(checkpoints) == settled


@pytest.mark.parametrize("content", ["", "[]", "{", '{"a": 1}'])
def test_without_a_note_dates_are_as_they_are(study, tmp_path, content):
    model, _, keep = study
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "dates.json").write_text(content)
    before = date_of(model)
    keep()
    assert date_of(model) == before
    set_date(model, before + DAY // 2)
    keep()
    assert date_of(model) == before


def test_a_date_that_may_not_be_set_is_told_where_it_matters(study, monkeypatch):
    """As in another user's results."""
    model, _, keep = study
    keep()
    before = date_of(model)

    def refuse(*_, **__):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    with monkeypatch.context() as patched:
        set_date(model, before + DAY // 2)
        patched.setattr(os, "utime", refuse)
        keep()
    assert date_of(model) == before + DAY // 2
    (model / "model.safetensors").write_bytes(b"another")
    set_date(model, before)
    monkeypatch.setattr(os, "utime", refuse)
    with pytest.raises(ValueError, match=r"its date cannot be set \(Operation not") as error:
        keep()
    assert str(error.value).startswith(f"{model}: ")


def test_a_folder_that_is_not_whole_is_left_out(study, tmp_path):
    model, _, keep = study
    (model / ".snakemake_timestamp").unlink()
    keep()
    assert str(model) not in (tmp_path / "kept" / "dates.json").read_text()
