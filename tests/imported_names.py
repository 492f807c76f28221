"""What the source of a module imports when it runs."""

import ast
from functools import cache


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
