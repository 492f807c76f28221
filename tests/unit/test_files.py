import errno
import json
import os
import shutil

import pytest

from sft_interactions.files import content_digest, link, link_as_given


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "given"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "weights").write_text("one")
    (folder / "config").write_text("two")
    return folder


@pytest.fixture(params=[False, True], ids=["read anew", "cached"])
def digest(request, tmp_path):
    cache = tmp_path / "cache" / "digests.json" if request.param else None
    return lambda *files: content_digest(files, cache)


def test_it_is_of_names_and_contents(digest, folder, tmp_path):
    before = digest(folder)
    assert len(before) == 64
    assert digest(folder) == before
    (tmp_path / "other").mkdir()
    moved = folder.rename(tmp_path / "other" / "place")
    assert digest(moved) == before
    assert digest(moved / "config", moved / "deep") == digest(moved / "deep", moved / "config")
    (moved / "config").rename(moved / "settings")
    assert digest(moved) != before


def test_a_change_of_the_same_size_and_time_is_seen(digest, folder):
    file = folder / "deep" / "weights"
    before, times = digest(folder), os.stat(file)
    file.write_text("ten")
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert os.stat(file).st_mtime_ns == times.st_mtime_ns
    assert digest(folder) != before
    file.write_text("one")
    assert digest(folder) == before


def test_an_older_folder_in_its_place_is_seen(digest, folder, tmp_path):
    before = digest(folder)
    folder.rename(tmp_path / "aside")
    older = folder
    (older / "deep").mkdir(parents=True)
    for name, text in (("config", "two"), ("deep/weights", "ten")):
        (older / name).write_text(text)
        os.utime(older / name, (1, 1))
    assert digest(older) != before


@pytest.mark.parametrize("given", ["folders", "files", "links"])
def test_folders_that_change_places_are_seen(digest, tmp_path, given):
    """As two checkpoints do, whose files have the same names."""
    for name in ("one", "two"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "weights").write_text(name)
        (tmp_path / f"best-{name}").symlink_to(tmp_path / "runs" / name)
    root = tmp_path if given == "links" else tmp_path / "runs"
    names = ["best-one", "best-two"] if given == "links" else ["one", "two"]
    ending = "weights" if given == "files" else ""
    before = digest(*(root / name / ending for name in names))
    (root / names[0]).rename(root / "aside")
    (root / names[1]).rename(root / names[0])
    (root / "aside").rename(root / names[1])
    assert digest(*(root / name / ending for name in names)) != before


def test_links_are_what_they_lead_to(digest, folder, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(folder / "config")
    before = digest(link)
    (folder / "config").write_text("new")
    assert digest(link) != before


def test_the_cache_spares_reading(folder, tmp_path):
    cache = tmp_path / "digests.json"
    before = content_digest([folder], cache)
    known = json.loads(cache.read_text())
    assert len(known) == 2
    cache.write_text(json.dumps({key: [*value[:-1], "0" * 64] for key, value in known.items()}))
    assert content_digest([folder], cache) != before  # it was believed
    cache.write_text("{cut off")
    assert content_digest([folder], cache) == before
    assert json.loads(cache.read_text()) == known


def test_a_missing_file_is_named(digest, folder):
    with pytest.raises(ValueError, match=r"nothing: cannot be read \(No such file"):
        digest(folder / "nothing")


@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP])
def test_a_file_system_without_links_is_told(tmp_path, monkeypatch, number):
    def refuse(target, place, *_):
        raise OSError(number, os.strerror(number), str(target), None, str(place))

    monkeypatch.setattr(os, "symlink", refuse)
    message = rf"^{tmp_path}/x: no symbolic link can be made here .*; name a results folder on an"
    with pytest.raises(ValueError, match=message):
        link(tmp_path / "x", tmp_path)


def test_other_errors_of_links_are_what_they_are(tmp_path):
    link(tmp_path / "x", tmp_path)
    assert (tmp_path / "x").resolve() == tmp_path
    with pytest.raises(FileExistsError):
        link(tmp_path / "x", tmp_path)


@pytest.fixture
def project(tmp_path, monkeypatch):
    """The working folder, with a model of its own, and a model beside it."""
    for folder in ("project/mine", "project/results", "beside"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "weights").write_text(folder)
    monkeypatch.chdir(tmp_path / "project")
    return tmp_path / "project"


def test_a_project_that_is_copied_or_moved_leads_to_its_own_files(project, tmp_path):
    link_as_given(project / "results" / "link", "mine")
    copied = shutil.copytree(project, tmp_path / "deeper" / "copy", symlinks=True)
    (copied / "mine" / "weights").write_text("of the copy")
    assert (copied / "results" / "link" / "weights").read_text() == "of the copy"
    assert (project / "results" / "link" / "weights").read_text() == "project/mine"


@pytest.mark.parametrize("given", ["absolute", "beside", "a link", "results elsewhere"])
def test_what_does_not_move_along_is_linked_to_by_its_place(project, tmp_path, given):
    (project / "latest").symlink_to(tmp_path / "beside")
    (tmp_path / "scratch").mkdir()
    (project / "out").symlink_to(tmp_path / "scratch")
    target = {"absolute": project / "mine", "beside": "../beside", "a link": "latest"}.get(
        given, "mine"
    )
    place = project / ("out" if given == "results elsewhere" else "results") / "link"
    expected = (project / target / "weights").read_text()
    link_as_given(place, target)
    assert os.path.isabs(os.readlink(place))
    (project / "latest").unlink()  # as where a trainer points it to its next checkpoint
    assert (place / "weights").read_text() == expected
