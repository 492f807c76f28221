"""Which part of the package may import which, and which libraries each may load."""

import ast
import re
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
from imported_names import imported_names

WORKFLOW = Path(__file__).parents[2] / "workflow"
PACKAGE = "sft_interactions"
# Part of the package to the parts that it may import, besides itself. A part is a folder, or a module
# that lies beside the folders.
MAY_IMPORT = {
    "__init__": {"version"},  # it loads its public names when they are first used
    "version": set(),
    "limits": set(),
    "environment": set(),
    "config": {"limits", "models"},
    "config_file": {"config", "orphans"},
    "files": {"orphans"},
    "folder_dates": {"models", "orphans"},
    "brief": set(),
    "processes": set(),
    "parallel": set(),
    "shortage": set(),
    "orphans": set(),
    "verdict_table": set(),
    "tables": {"version", "shortage", "orphans"},
    "origin": {"tables", "files", "models"},
    "data": {"tables", "orphans"},
    "models": {"data", "tables", "files", "orphans"},
    "masking": {"models", "data", "tables", "files"},
    "extraction": {"tables", "limits", "parallel"},
    "analysis": {"extraction", "tables", "limits", "parallel", "verdict_table"},
    "figures": {"analysis", "tables"},
    "report_table": {"report_page", "tables"},
    "report_page": {"figures", "analysis", "extraction", "tables", "verdict_table"},
    "own_run": {"orphans", "config_file", "config", "limits", "models", "data", "tables", "files"},
    "explanation": {
        "figures",
        "analysis",
        "extraction",
        "masking",
        "models",
        "data",
        "tables",
        "files",
        "limits",
    },
    "callback": {
        "explanation",
        "analysis",
        "extraction",
        "masking",
        "models",
        "data",
        "tables",
        "shortage",
    },
}
# Library to the parts that may load it, themselves or through what they import.
MAY_LOAD = {
    "torch": {"models", "masking", "explanation", "callback"},
    "transformers": {"models", "masking", "explanation", "callback"},
    "matplotlib": {"figures", "report_page", "explanation", "callback"},
    "snakemake": set(),
}


def name_of(path):
    """Module of a file, without the name of the package: ``tables``, ``data.words``, ``data.__init__``."""
    return ".".join(path.relative_to(WORKFLOW / PACKAGE).with_suffix("").parts)


SOURCES = {name_of(path): path.read_text() for path in (WORKFLOW / PACKAGE).rglob("*.py")}


def part_of(module):
    return module.partition(".")[0]


def imports_of(sources, module):
    """Modules of the package and libraries that a module imports."""
    own, libraries = set(), set()
    for name in imported_names(sources[module]):
        top, _, inside = name.partition(".")
        if top == PACKAGE:
            own.add(module_that_holds(sources, inside))
        else:
            libraries.add(top)
    return own - {module}, libraries


def module_that_holds(sources, name):
    """The module that is meant by a module's name, or by the name of something in a module."""
    parts = name.split(".") if name else []
    for end in range(len(parts), -1, -1):
        for found in (".".join(parts[:end]), ".".join([*parts[:end], "__init__"])):
            if found in sources:
                return found
    raise AssertionError(f"there is no module {name}")


def reached_from(sources, module):
    """A module and all modules of the package that it imports, themselves or through others."""
    found, left = set(), {module}
    while left:
        found |= left
        left = {own for one in left for own in imports_of(sources, one)[0]} - found
    return found


def problems(sources):
    """What breaks the rules, one line each."""
    found = []
    for module in sorted(sources):
        part = part_of(module)
        own, _ = imports_of(sources, module)
        for other in sorted(own):
            if part_of(other) not in {part, *MAY_IMPORT[part]}:
                found.append(f"{module} imports {other}")
        libraries = {
            library
            for one in reached_from(sources, module)
            for library in imports_of(sources, one)[1]
        }
        for library, parts in MAY_LOAD.items():
            if library in libraries and part not in parts:
                found.append(f"{module} loads {library}")
    return found


def circle(sources):
    """Modules that import each other in a circle; empty where there is none."""
    graph = {module: imports_of(sources, module)[0] for module in sources}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def test_every_part_has_its_rule():
    assert {part_of(module) for module in SOURCES} == set(MAY_IMPORT)


def test_imports_run_one_way():
    assert problems(SOURCES) == []


def test_figures_read_no_file():
    reading = {"open", "read", "scan", "read_text", "read_bytes", "read_csv", "read_parquet"}
    for module, source in SOURCES.items():
        if part_of(module) == "figures":
            calls = (
                node.func for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)
            )
            names = {ast.unparse(call).rpartition(".")[2] for call in calls}
            assert not names & reading, module


def test_no_modules_import_each_other_in_a_circle():
    assert circle(SOURCES) == []


@pytest.mark.parametrize(
    ("module", "line", "problem"),
    [
        ("analysis.new", "from sft_interactions.figures.style import RC", "imports figures.style"),
        ("extraction.new", "from sft_interactions import config", "imports config"),
        ("data.new", "import sft_interactions.masking.parts", "imports masking.parts"),
        ("config", "from sft_interactions import tables", "imports tables"),
        ("figures.new", "from sft_interactions.models import loading", "loads torch"),
        ("analysis.new", "def f():\n    import matplotlib.pyplot", "loads matplotlib"),
    ],
)
def test_a_broken_rule_is_noticed(module, line, problem):
    sources = {**SOURCES, module: f"{SOURCES.get(module, '')}\n{line}\n"}
    assert f"{module} {problem}" in problems(sources)


def test_a_circle_inside_a_part_is_noticed():
    line = "from sft_interactions.analysis.findings import conclude"
    assert circle({**SOURCES, "analysis.metrics": f"{SOURCES['analysis.metrics']}\n{line}\n"})


def loaded_after_importing(modules, looked_for=frozenset(MAY_LOAD)):
    code = f"import sys, importlib\nfor name in {modules!r}: importlib.import_module(name)\n"
    code += f"print(*sorted({set(looked_for)!r} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=WORKFLOW, capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("parts", "libraries"),
    [
        ({"config", "tables", "data", "extraction", "analysis"}, set()),
        ({"figures"}, {"matplotlib"}),
    ],
)
def test_what_the_libraries_themselves_load(parts, libraries):
    modules = [f"{PACKAGE}.{module}" for module in SOURCES if part_of(module) in parts]
    assert loaded_after_importing(sorted(modules)) == libraries


@pytest.mark.slow
def test_jobs_that_find_no_stage_load_nothing_that_takes_longer_than_they_do():
    # A study has a hundred jobs, each of which is a process that imports what it uses.
    modules = [f"{PACKAGE}.{module}" for module in SOURCES if part_of(module) == "analysis"]
    assert f"{PACKAGE}.analysis.sensitivity" in modules
    assert loaded_after_importing(modules, {"ruptures", "scipy.stats", "scipy.special"}) == {
        "scipy.special"
    }


def test_the_list_of_figures_is_read_without_matplotlib():
    assert loaded_after_importing([f"{PACKAGE}.figures.catalogue"]) == set()


def test_a_checkpoint_that_is_the_model_itself_is_linked_without_a_library_of_models():
    script = ast.parse((WORKFLOW / "scripts" / "own_checkpoints.py").read_text())
    imports = [node for node in script.body if isinstance(node, ast.ImportFrom)]
    modules = [node.module for node in imports if node.module.startswith(PACKAGE)]
    assert modules
    assert loaded_after_importing(modules, {"torch", "transformers"}) == set()


def test_what_the_rules_import_needs_no_library_but_those_of_snakemake():
    # Snakemake may lie in an environment of its own, see docs/clusters.md.
    rules = [WORKFLOW.parent / "Snakefile", *WORKFLOW.glob("rules/*.smk")]
    names = {name for path in rules for name in named_in_rules(path.read_text())}
    modules = {module_that_holds(SOURCES, name) for name in names}
    assert "analysis.choices" in modules
    libraries = {
        library
        for module in modules
        for one in reached_from(SOURCES, module)
        for library in imports_of(SOURCES, one)[1]
    }
    assert libraries - set(sys.stdlib_module_names) <= {"jsonschema", "yaml"}


def named_in_rules(source):
    """Modules of the package that a file of rules imports; its rules are no Python."""
    lines = re.findall(
        rf"^(?:from|import) {PACKAGE}\S* ?(?:import (?:\w+|\([^)]*\)))?", source, re.M
    )
    found = [name.partition(".")[2] for line in lines for name in imported_names(line)]
    return {name for name in found if name}
