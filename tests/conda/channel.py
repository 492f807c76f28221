"""Make a conda channel in a folder, with a python and a pip package that are real.

python is this interpreter's own installation. Usage: channel.py FOLDER PIP_VERSION
"""

import asyncio
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
from pathlib import Path

from rattler.index import index_fs

SHORT = f"python{sysconfig.get_python_version()}"
LEFT_OUT = shutil.ignore_patterns("__pycache__", "test", "tests", "site-packages", "*.a", "idlelib")


def pack(tree, channel, name, version, depends):
    """Pack what lies under ``tree`` as a conda package."""
    files = sorted(path for path in tree.rglob("*") if path.is_file() or path.is_symlink())
    paths = [
        {
            "_path": str(path.relative_to(tree)),
            "path_type": "softlink" if path.is_symlink() else "hardlink",
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "size_in_bytes": path.stat().st_size,
        }
        for path in files
    ]
    index = {
        "name": name,
        "version": version,
        "build": "0",
        "build_number": 0,
        "depends": depends,
        "subdir": "linux-64",
        "timestamp": 1_700_000_000_000,
    }
    info = tree / "info"
    info.mkdir()
    (info / "index.json").write_text(json.dumps(index))
    (info / "paths.json").write_text(json.dumps({"paths": paths, "paths_version": 1}))
    (info / "files").write_text("".join(f"{entry['_path']}\n" for entry in paths))
    folder = channel / "linux-64"
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(folder / f"{name}-{version}-0.tar.bz2", "w:bz2", compresslevel=1) as archive:
        for path in (info, *files):
            archive.add(path, path.relative_to(tree))


def python_tree(tree):
    source = Path(sys.base_prefix)
    (tree / "bin").mkdir(parents=True)
    shutil.copy2(source / "bin" / SHORT, tree / "bin" / SHORT)
    for alias in ("python", "python3"):
        (tree / "bin" / alias).symlink_to(SHORT)
    library = tree / "lib" / SHORT
    shutil.copytree(source / "lib" / SHORT, library, ignore=LEFT_OUT, symlinks=True)
    (library / "site-packages").mkdir()
    (library / "site-packages" / "README.txt").write_text("packages\n")


def pip_tree(tree, version):
    site = tree / "lib" / SHORT / "site-packages"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-compile"]
    subprocess.run([*command, "--target", str(site), f"pip=={version}"], check=True)
    shutil.rmtree(site / "bin", ignore_errors=True)


channel, pip_version = Path(sys.argv[1]), sys.argv[2]
with tempfile.TemporaryDirectory() as folder:
    trees = Path(folder)
    python_tree(trees / "python")
    pack(trees / "python", channel, "python", platform.python_version(), [])
    pip_tree(trees / "pip", pip_version)
    pack(trees / "pip", channel, "pip", pip_version, [f"python {sysconfig.get_python_version()}.*"])
asyncio.run(index_fs(channel))
# A thread of py-rattler may still be about to take the lock of an interpreter that ends, which kills it.
os._exit(0)
