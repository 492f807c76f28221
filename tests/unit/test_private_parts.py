"""Which private parts of other libraries the package stands on, and where."""

import ast
from pathlib import Path

import sft_interactions

PACKAGE = Path(sft_interactions.__file__).parent
# Each has a comment in its module why, and a test of its own that tells when an upgrade changes it.
KNOWN = {
    ("masking/live.py", "_compiled_call_impl"),  # test_live.py
    ("masking/prefix_tree.py", "_attn_implementation"),  # test_prefix_tree.py
    ("models/packed_linear.py", "_linear_pointwise"),  # test_packed_linear.py
    ("models/packed_linear.py", "_reorder_linear_weight"),  # test_packed_linear.py
}


# What its library documents, under a name that begins like a private one.
DOCUMENTED = {"_exit"}  # of os


def is_private(name: str) -> bool:
    return name not in DOCUMENTED and name.startswith("_") and not name.startswith("__")


def private_parts(tree: ast.Module) -> set[str]:
    """Private attributes of anything but an object's own, and private names that are imported."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and is_private(node.attr):
            if not (isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")):
                found.add(node.attr)
        elif isinstance(node, ast.ImportFrom):
            path = [*(node.module or "").split("."), *(alias.name for alias in node.names)]
            found |= {name for name in path if is_private(name)}
    return found


def test_private_parts_of_other_libraries_are_known():
    found = {
        (path.relative_to(PACKAGE).as_posix(), name)
        for path in PACKAGE.rglob("*.py")
        for name in private_parts(ast.parse(path.read_text("utf-8")))
    }
    assert found == KNOWN
