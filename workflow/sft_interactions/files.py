"""Files by their content: those that a user brought and those of a model folder; and links.

Imports the standard library only.
"""

import errno
import hashlib
import json
import os
import tempfile
from collections.abc import Collection, Iterable
from pathlib import Path

from sft_interactions.orphans import PARTIAL

# What file systems without symbolic links answer.
_NO_LINKS = (errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
# In the form of the command sha256sum, which can check it too.
CHECKSUMS = "SHA256SUMS"


def write_checksums(folder: str | Path) -> None:
    """Write the file ``SHA256SUMS`` of the files in a folder, links and folders left out."""
    folder = Path(folder)
    files = [path for path in sorted(folder.iterdir()) if path.is_file() and not path.is_symlink()]
    if lines := [f"{_sha256(path)}  {path.name}\n" for path in files]:
        (folder / CHECKSUMS).write_text("".join(lines), "utf-8")


def read_checksums(folder: str | Path) -> dict[str, str]:
    """Name of a file to its digest, as ``SHA256SUMS`` in a folder has them; empty where there is none."""
    return dict(_lines_of_checksums(Path(folder)))


def _lines_of_checksums(folder: Path) -> Iterable[tuple[str, str]]:
    path = folder / CHECKSUMS
    if path.is_file():
        for line in path.read_bytes().decode("utf-8", "replace").splitlines():
            digest, _, name = line.partition("  ")
            yield name, digest


def check_checksums(
    folder: str | Path, leave_out: Collection[str] = (), *, mend: str | None = None
) -> None:
    """Check that the files of a folder are what was written; without ``SHA256SUMS`` nothing is known.

    Args:
        folder: a model or a checkpoint.
        leave_out: endings of files that are not looked at.
        mend: what the message says to do; by default what mends a study.

    Raises:
        ValueError: a file is another one, or missing.
    """
    folder = Path(folder)
    for name, digest in _lines_of_checksums(folder):
        file = folder / (name or CHECKSUMS)
        if file.suffix in leave_out and file.is_file():
            continue
        if not (name and file.is_file() and _sha256(file) == digest):
            raise ValueError(
                f"{file}: this is not what was written (a damaged disk or copy, or a change by another "
                f"program); {mend or _mend(folder)}"
            )


def _mend(folder: Path) -> str:
    if folder.is_symlink():  # a user's own
        return f"copy it again, or delete {CHECKSUMS} beside it if the change is meant"
    output = folder.parent if folder.parent.name == "checkpoints" else folder
    return f"delete {output} and run snakemake again to rebuild it"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def link(place: Path, target: str | Path) -> None:
    """Make ``place`` a symbolic link to a file or folder.

    Raises:
        ValueError: the file system has no symbolic links.
        OSError: it cannot be made for another reason.
    """
    try:
        place.symlink_to(target)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        raise ValueError(
            f"{place}: no symbolic link can be made here ({error.strerror}), as on exFAT and some shares; "
            "name a results folder on another file system"
        ) from error


def find_steps(folders: Iterable[str | Path], steps: Iterable[int]) -> dict[int, Path]:
    """Folder of each checkpoint, among folders of single ones and folders that hold several.

    Raises:
        ValueError: a checkpoint is in none of them.
    """
    places = [Path(folder) for folder in folders]
    found = {}
    for step in steps:
        name = f"step-{step}"
        there = [place if place.name == name else place / name for place in places]
        chosen = [place for place in there if place.is_dir()]
        if not chosen:
            raise ValueError(
                f"{places[0]}: there is no {name}; delete the folder and run snakemake again"
            )
        found[step] = chosen[0]
    return found


def link_as_given(place: Path, target: str | Path) -> None:
    """Make ``place`` a symbolic link to a file or folder that is there, and which a config names.

    What a relative path names below the working folder is linked to by a relative path: a project that is
    moved or copied then leads to its own files, as its config does. All else is linked to by the place that
    links on the way lead to now.

    Raises:
        ValueError, OSError: see :func:`link`.
    """
    real, folder = Path(target).resolve(), place.parent.resolve()
    moves_along = not Path(target).is_absolute() and all(
        path.is_relative_to(Path.cwd()) for path in (real, folder)
    )
    link(place, os.path.relpath(real, folder) if moves_along else real)


def content_digest(files: Iterable[str | Path], cache: str | Path | None = None) -> str:
    """Digest of the names and the contents of some files, whatever their times say.

    A copy that keeps its times, or an older folder moved to the place of a newer one, has another digest if
    one byte differs; and so have two folders that changed places. Where all of them lie makes no
    difference.

    Args:
        files: files in any order; folders stand for all files below them.
        cache: a JSON file that keeps the digest of every file beside its inode, size and times, so that
            gigabytes are read once; made if it is missing.

    Returns:
        64 hexadecimal digits.

    Raises:
        ValueError: a file cannot be read.
    """
    known = _read_cache(cache)
    found: dict[str, list[object]] = {}
    try:
        lines = sorted(f"{name} {_digest(path, known, found)}" for name, path in _named(files))
    except OSError as error:
        raise ValueError(
            f"{error.filename}: cannot be read ({error.strerror}); correct it"
        ) from error
    if cache is not None and any(known.get(key) != value for key, value in found.items()):
        _write_cache(Path(cache), {**known, **found})
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _named(files: Iterable[str | Path]) -> Iterable[tuple[str, Path]]:
    """Files, and their names below the innermost folder that holds all that is given."""
    given = [Path(os.path.abspath(path)) for path in files]
    if not given:
        return
    common = os.path.commonpath([path if path.is_dir() else path.parent for path in given])
    for path in given:
        for file in path.rglob("*") if path.is_dir() else [path]:
            if path == file or file.is_file():
                yield file.relative_to(common).as_posix(), file


def _digest(path: Path, known: dict[str, list[object]], found: dict[str, list[object]]) -> str:
    about = path.stat()
    # Writing to a file changes ctime, which cannot be set back; moving another one there changes the inode.
    state = [about.st_ino, about.st_size, about.st_mtime_ns, about.st_ctime_ns]
    key = str(path.resolve())
    if key in known and known[key][:-1] == state:
        return str(known[key][-1])
    digest = _sha256(path)
    found[key] = [*state, digest]
    return digest


def _read_cache(cache: str | Path | None) -> dict[str, list[object]]:
    if cache is None or not Path(cache).is_file():
        return {}
    try:
        known: dict[str, list[object]] = json.loads(Path(cache).read_text("utf-8"))
    except ValueError:  # another job's write was cut off; all is read anew
        return {}
    return known


def _write_cache(cache: Path, known: dict[str, list[object]]) -> None:
    cache.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=cache.parent, prefix=f"{PARTIAL}{cache.name}-")
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        json.dump(known, file)
    Path(temporary).replace(cache)


def digest_of_modules(names: Iterable[str]) -> str:
    """Digest of the sources of some modules of this package, 12 hex digits.

    For what depends on a part of the library only, which
    :func:`~sft_interactions.tables.code_version` would make anew with every change elsewhere.

    Args:
        names: modules by their names inside the package, such as ``masking.log_odds``.
    """
    package = Path(__file__).parent
    digest = hashlib.sha256()
    for name in sorted(names):
        digest.update(name.encode())
        digest.update(package.joinpath(*name.split(".")).with_suffix(".py").read_bytes())
    return digest.hexdigest()[:12]
