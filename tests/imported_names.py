"""What the source of a module imports when it runs."""

import ast
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "workflow" / "sft_interactions"


def is_for_type_checkers(node):
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def nodes_that_run(node):
    """All nodes of a tree but those that only type checkers see."""
    yield node
    for child in ast.iter_child_nodes(node):
        if not is_for_type_checkers(child):
            yield from nodes_that_run(child)


@cache
def imported_names(source):
    """Dotted names that a source imports, wherever in it."""
    names = set()
    for node in nodes_that_run(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"name the whole path of the module: {ast.unparse(node)}"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def imported_modules(name):
    """Modules of the package that a module imports, such as ``masking.job``."""
    found = set()
    for node in ast.walk(ast.parse((PACKAGE / f"{name.replace('.', '/')}.py").read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("sft_interactions"):
            within = node.module.removeprefix("sft_interactions").removeprefix(".")
            names = [f"{within}.{alias.name}".removeprefix(".") for alias in node.names]
            found |= {
                full if (PACKAGE / f"{full.replace('.', '/')}.py").is_file() else within
                for full in names
            }
    return found
