"""Extension of griffe: turns :func:`name` in docstrings into a link of the API reference.

A name is looked up from where the docstring stands: in its module, or as a whole path. One that does not
exist is a warning, and so an error of `mkdocs build --strict`.
"""

import re

import griffe

ROLE = re.compile(r":(?:attr|class|data|exc|func|meth|mod):`(~?)([\w.]+)`")
log = griffe.get_logger("docstring_roles")


class DocstringRoles(griffe.Extension):
    """Links for the roles in all docstrings of a package."""

    def on_package(self, *, pkg: griffe.Module, **_: object) -> None:
        self._replace(pkg, pkg)

    def _replace(self, found: griffe.Object, package: griffe.Module) -> None:
        if found.docstring:
            found.docstring.value = ROLE.sub(
                lambda match: _link(match, found, package), found.docstring.value
            )
        for member in found.members.values():
            if not member.is_alias:
                self._replace(member, package)


def _link(match: re.Match[str], found: griffe.Object, package: griffe.Module) -> str:
    short, name = match.groups()
    text = name.rpartition(".")[2] if short else name
    first, _, rest = name.partition(".")
    try:
        path = (
            name if first == package.name else ".".join(filter(None, [found.resolve(first), rest]))
        )
        package[path.removeprefix(f"{package.name}.")]
    except (griffe.NameResolutionError, KeyError):
        log.warning(f"{found.path}: its docstring names {name}, which does not exist")
        return f"`{text}`"
    return f"[`{text}`][{path}]"
