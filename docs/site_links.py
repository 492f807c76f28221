"""Hook of mkdocs: takes files outside docs/ into the site, and checks that a browser loads nothing else.

Pages link to files of the repository by relative paths, as GitHub wants them. Whatever a page links to
becomes part of the site: Markdown a page of its own, a folder without a README.md a page that lists it,
anything else a plain file. docs/method.md is method.html there, results/README.md results/index.html.
"""

import logging
import os.path
import re
from pathlib import Path

from mkdocs.structure.files import File

log = logging.getLogger("mkdocs.hooks.site_links")

CODE_OR_LINK = re.compile(
    r"(?:```.*?^ *```|`[^`\n]*`)|(?:(?<=\]\()|(?<= src=\"))(?P<target>[^)\"\s]+)(?=[)\"])",
    re.S | re.M,
)
ASSET = re.compile(
    r"<(?:script|img|iframe|source|video|audio|embed)\b[^>]*\bsrc=[\"']?(?:https?:)?//[^\"' >]+"
    r"|<link\b(?![^>]*\brel=[\"']?(?:canonical|next|prev)\b)[^>]*\bhref=[\"']?(?:https?:)?//[^\"' >]+"
)
STYLE_ASSET = re.compile(r"(?:@import\s+|url\()[\"']?(?:https?:)?//[^\"')\s]+")


def on_files(files, config):
    """Add every file outside docs/ that a page of the site, or one so added, or the navigation names."""
    root, docs = _root(config), Path(config.docs_dir)
    left = [root / uri for uri in _pages_of(config.nav) if not (docs / uri).exists()]
    for file in files.documentation_pages():
        left += _linked_files(docs / file.src_uri, docs)
    added = set()
    while left:
        path = left.pop()
        if path in added or path.is_relative_to(docs) or not path.is_relative_to(root):
            continue
        added.add(path)
        uri = path.relative_to(root).as_posix()
        if path.exists():
            files.append(File.generated(config, uri, abs_src_path=str(path)))
            if path.suffix == ".md":
                left += _linked_files(path, docs)
        elif path.name == "README.md" and path.parent.is_dir():
            files.append(File.generated(config, uri, content=_listing(path.parent, root)))
            left += [_file_of(entry) for entry in path.parent.iterdir()]
    return files


def on_page_markdown(markdown, page, config, files):
    """Turn links between files of the repository into links between files of the site."""
    root, docs = _root(config), Path(config.docs_dir)
    source = root / page.file.src_uri if page.file.generated_by else docs / page.file.src_uri

    def in_site(match):
        if match["target"] is None:
            return match[0]
        path = _target(match["target"], source.parent)
        if path is None or not path.exists():
            return match[0]
        path, _, anchor = _file_of(path), *match["target"].partition("#")[1:]
        uri = path.relative_to(docs if path.is_relative_to(docs) else root)
        here = Path(page.file.src_uri).parent
        return os.path.relpath(uri, here) + (f"#{anchor}" if anchor else "")

    return CODE_OR_LINK.sub(in_site, markdown)


def on_post_page(output, page, config):
    for asset in ASSET.findall(output):
        log.warning("%s loads something from another host: %s", page.file.dest_uri, asset)
    return output


def on_post_build(config):
    for path in Path(config.site_dir).rglob("*.css"):
        for asset in STYLE_ASSET.findall(path.read_text()):
            log.warning("%s loads something from another host: %s", path.name, asset)


def _root(config):
    return Path(config.config_file_path).parent


def _pages_of(nav):
    """Addresses in a navigation tree of mkdocs.yml."""
    if isinstance(nav, str):
        yield nav
    else:
        for entry in nav.values() if isinstance(nav, dict) else nav:
            yield from _pages_of(entry)


def _linked_files(page, docs):
    """Files of the repository that a Markdown page links to."""
    found = [
        _target(match["target"], page.parent)
        for match in CODE_OR_LINK.finditer(page.read_text())
        if match["target"] is not None
    ]
    return [_file_of(path) for path in found if path is not None and path.exists()]


def _target(link, folder):
    """The path that a relative link means; None for another host or a place on the same page."""
    address = link.partition("#")[0]
    if not address or re.match(r"[a-z]+:", address):
        return None
    return Path(os.path.normpath(folder / address))


def _file_of(path):
    return path / "README.md" if path.is_dir() else path


def _listing(folder, root):
    """Page in place of a folder that has no README.md."""
    entries = sorted(folder.iterdir(), key=lambda path: (path.is_file(), path.name))
    lines = [f"- [{path.name}]({path.name})" for path in entries]
    return "\n".join([f"# {folder.relative_to(root).as_posix()}", "", *lines, ""])
