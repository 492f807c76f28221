import errno
import json
import os
import shutil
import subprocess

import pytest

from sft_interactions.files import (
    CHECKSUMS,
    check_checksums,
    content_digest,
    link,
    link_as_given,
    write_checksums,
)


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
def checked(tmp_path):
    """A checkpoint with checksums, beside a link to a file of a user."""
    folder = tmp_path / "checkpoints" / "step-5"
    folder.mkdir(parents=True)
    (folder / "adapter_model.safetensors").write_bytes(bytes(range(256)))
    (folder / "adapter_config.json").write_text('{"r": 8}')
    (tmp_path / "own.txt").write_text("of a user")
    (folder / "own.txt").symlink_to(tmp_path / "own.txt")
    write_checksums(folder)
    return folder


def test_what_was_written_is_taken(checked, tmp_path):
    check_checksums(checked)
    (tmp_path / "own.txt").write_text("changed: known by its content, as a param of the rule")
    check_checksums(checked)
    (checked / CHECKSUMS).unlink()
    check_checksums(checked)


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="no sha256sum")
def test_the_checksums_are_those_of_sha256sum(checked):
    done = subprocess.run(
        ["sha256sum", "--check", "--strict", CHECKSUMS], cwd=checked, capture_output=True, text=True
    )
    assert done.returncode == 0
    assert done.stdout.splitlines() == ["adapter_config.json: OK", "adapter_model.safetensors: OK"]


def test_any_changed_bit_is_told(checked):
    names = ["adapter_config.json", "adapter_model.safetensors", CHECKSUMS]
    for name in names:
        content = (checked / name).read_bytes()
        for byte in range(len(content)):
            flipped = bytes([content[byte] ^ 1 << byte % 8])
            (checked / name).write_bytes(content[:byte] + flipped + content[byte + 1 :])
            with pytest.raises(ValueError, match="this is not what was written") as error:
                check_checksums(checked)
            assert str(error.value).startswith(f"{checked}/")
            assert f"delete {checked.parent} and run snakemake again" in str(error.value)
        (checked / name).write_bytes(content)


def test_a_users_own_checkpoint_is_not_to_be_deleted(checked, tmp_path):
    own = tmp_path / "own"
    own.symlink_to(checked)
    check_checksums(own)
    (checked / "adapter_config.json").write_text("changed")
    with pytest.raises(ValueError, match="; copy it again, or delete SHA256SUMS beside it if"):
        check_checksums(own)


def test_a_missing_file_of_a_checkpoint_is_told(checked):
    (checked / "adapter_config.json").unlink()
    with pytest.raises(ValueError, match=r"adapter_config\.json: this is not what was written"):
        check_checksums(checked)


def test_weights_can_be_left_out(checked):
    (checked / "adapter_model.safetensors").write_bytes(b"changed")
    check_checksums(checked, leave_out=[".safetensors"])
    with pytest.raises(ValueError, match="adapter_model"):
        check_checksums(checked)


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
