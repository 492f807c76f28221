"""What the pages of the repository name exists: rules, config keys, files, anchors, commands, targets."""

import ast
import re
import shlex
import subprocess
import sys
from functools import cache
from itertools import pairwise
from pathlib import Path

import polars as pl
import pytest
import yaml
from snakemake.cli import get_argument_parser

ROOT = Path(__file__).parents[2]
PACKAGES = ROOT / "workflow"
# CHANGELOG.md has old names too, so that only its links are checked.
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "config/README.md")),
    *(ROOT / "results" / name for name in ("README.md", "reference/README.md")),
    *sorted(ROOT.glob("docs/**/*.md")),
]
LINKED_PAGES = [*PAGES, ROOT / "CHANGELOG.md", ROOT / "workflow" / "resources" / "README.md"]
PROFILES = sorted(ROOT.glob("profiles/*/config.yaml"))

SCHEMA = yaml.safe_load((ROOT / "workflow" / "schemas" / "config.schema.yaml").read_text())
RULES_TEXT = "".join(
    path.read_text() for path in [ROOT / "Snakefile", *sorted(ROOT.glob("workflow/rules/*.smk"))]
)
SCRIPTS_TEXT = "".join(path.read_text() for path in sorted(ROOT.glob("workflow/scripts/*.py")))
RULES = {"all", *re.findall(r"^(?:use rule \w+ as|rule) (\w+)", RULES_TEXT, re.M)}
MAKE_TARGETS = " ".join(re.findall(r"^([\w -]+):", (ROOT / "Makefile").read_text(), re.M)).split()
# What lies in results/ is made by the workflow, but for its reference.
FOLDERS = (
    *(".ci", ".github", "benchmarks", "config", "docs", "envs", "profiles", "tests", "workflow"),
    "results/reference",
)

BLOCK = re.compile(r"^( *)```(\w*)\n(.*?)^\1```", re.M | re.S)
SPAN = re.compile(r"`([^`]+)`")
LINK = re.compile(r"\]\(([^)\s]+)\)|\b(?:src|href)=\"([^\"]+)\"")
NOT_A_KEY = {"parquet", "json", "csv", "md", "py", "yaml", "html", "pdf", "svg", "png"}
PLACEHOLDER = re.compile(r"\{\w+\}")


def inline_code(text):
    """Code spans outside code blocks; one may reach over the end of a line."""
    return [" ".join(span.split()) for span in SPAN.findall(BLOCK.sub("", text))]


def code_blocks(text, language=None):
    return [
        block for _, found, block in BLOCK.findall(text) if language is None or found == language
    ]


def commands(text):
    """Code spans, and lines of code blocks without a language, with continued lines joined."""
    lines = "\n".join(code_blocks(text, "")).replace("\\\n", " ").splitlines()
    return [*inline_code(text), *(line.partition(" #")[0].strip() for line in lines)]


# --- Rules ---------------------------------------------------------------------------------------


def rules_that_are_not_there(text):
    """Of ``the rule `x```, ``rules `x` and `y```, and ``x:mem_mb=1`` after --set-resources."""
    prose = BLOCK.sub("", text)
    named = set()
    for listed in re.findall(
        r"(?<!salience )\brules? ((?:`\w+`(?:, | and )?)+)", " ".join(prose.split())
    ):
        named |= set(SPAN.findall(listed))
    for command in commands(text):
        if "--set-resources" in command:
            named |= set(re.findall(r"\b(\w+):\w+=", command))
    return [f"there is no rule {name}" for name in sorted(named - RULES)]


def rules_in_tables_that_are_not_there(text):
    """Of the cells under the heading "rule" or "rules" of a table: names alone, or in code."""
    found = []
    for table in re.findall(r"^\|.*\n\|[-:| ]+\|\n(?:\|.*\n?)*", text, re.M):
        head, _, *rows = (cells_of(line) for line in table.splitlines())
        columns = [k for k, name in enumerate(head) if re.match(r"rules?\b", name)]
        for cell in (row[k] for row in rows for k in columns):
            listed = (
                re.findall(r"\w+", cell) if re.fullmatch(r"[\w, ]+", cell) else SPAN.findall(cell)
            )
            found += [f"there is no rule {name}" for name in listed if name not in RULES]
    return found


def rows_of_no_table(text):
    """Lines that begin with a bar and are no row of a table with a heading, or have more or fewer cells."""
    text = BLOCK.sub(lambda block: "\n" * block[0].count("\n"), text)
    found, cells = [], 0
    lines = [*text.splitlines(), ""]
    for number, (line, following) in enumerate(pairwise(lines), start=1):
        if not line.startswith("|"):
            cells = 0
            continue
        if not cells and re.fullmatch(r"\|[-:| ]+\|", following):
            cells = len(cells_of(line))
        if not cells or len(cells_of(line)) != cells:
            found.append(f"line {number} is no row of a table of {cells} columns: {line[:60]}")
    return found


def cells_of(line):
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def rules_that_take_no_gpu(text):
    """Rules named, in code, in a sentence on GPUs that take none (profiles/gpus)."""
    profile = yaml.safe_load((ROOT / "profiles" / "gpus" / "config.yaml").read_text())
    gpu = {rule for rule, resources in profile["set-resources"].items() if "gpu" in resources}
    sentences = re.split(r"(?<=[.;|])\s", " ".join(BLOCK.sub("", text).split()))
    return [
        f"{name} takes no GPU: {sentence}"
        for sentence in sentences
        for name in SPAN.findall(sentence)
        if "GPU" in sentence and name in RULES - gpu
    ]


def environments_of_other_rules(text):
    """Rules that a table of environments puts under another one than their own."""
    found = []
    for environment, cell in re.findall(r"^\| `(\w+\.yaml)` \| ([\w, ]+) \|", text, re.M):
        named = set(re.findall(r"\w+", cell))
        own = {name for name in RULES if environment_of(name) == environment}
        variants = {
            name for name in own if re.search(rf"^use rule \w+ as {name}\b", RULES_TEXT, re.M)
        }
        if named != own - variants:
            found.append(f"{environment} is that of {sorted(own - variants)}, not {sorted(named)}")
    return found


def environment_of(name):
    """The file in envs/ that a rule names, its own or that of the rule that it varies."""
    base = re.search(rf"^use rule (\w+) as {name}\b", RULES_TEXT, re.M)
    body = re.search(rf"^rule {base[1] if base else name}:\n((?:[ \t].*\n|\n)+)", RULES_TEXT, re.M)
    environment = re.search(r"envs/([\w.]+)", body[1]) if body else None
    return environment and environment[1]


# --- Config keys ---------------------------------------------------------------------------------


def config_keys_that_are_not_there(text):
    """Of dotted keys in code, alone or with a value, such as `inference.method: auto`."""
    found = []
    for span in inline_code(text):
        key, _, value = span.partition(": ")
        names = key.split(".")
        if not re.fullmatch(r"\w+(\.(\w+|\{\w+\})(\[\])?)+", key) or names[-1] in NOT_A_KEY:
            continue
        if names[0] in SCHEMA["properties"]:
            entry = schema_of(names)
            if entry is None:
                found.append(f"there is no config key {key}")
            elif value and "enum" in entry and value not in map(str, entry["enum"]):
                found.append(f"{key} cannot be {value}")
    return found


def schema_of(names):
    """The schema of a dotted key; None where there is none."""
    entry = SCHEMA
    for name in names:
        entry = resolved(entry)
        entry = entry.get("items", entry)
        name = name.removesuffix("[]")
        blocks = [entry, *(one for one in entry.get("oneOf", ()) if "properties" in one)]
        known = {key: part for block in blocks for key, part in block.get("properties", {}).items()}
        entry = known.get(name) or entry.get("additionalProperties")
        if not isinstance(entry, dict):
            return None
    return resolved(entry)


def resolved(entry):
    while "$ref" in entry:
        entry = SCHEMA["$defs"][entry["$ref"].rpartition("/")[2]]
    return entry


def settings_that_are_not_there(text):
    """Of `key: value` in code: the key is somewhere in the schema, or in a profile."""
    known = {name for block in every_block(SCHEMA) for name in block.get("properties", {})}
    known |= {name for path in PROFILES for name in every_key(yaml.safe_load(path.read_text()))}
    found = [re.fullmatch(r"([a-z_]+): [^:\"]+", span) for span in inline_code(text)]
    return [f"there is no setting {m[1]}" for m in found if m and m[1] not in known]


def every_key(value):
    if isinstance(value, dict):
        for key, entry in value.items():
            yield key
            yield from every_key(entry)


def every_block(schema):
    """Every schema of keys and values inside a schema."""
    if isinstance(schema, dict):
        if "properties" in schema or isinstance(schema.get("additionalProperties"), dict):
            yield schema
        for entry in schema.values():
            yield from every_block(entry)


def configs_that_do_not_fit(text):
    """Of blocks of YAML: there is a place in the schema where all their keys may stand."""
    return [
        f"no place in the schema has the keys of:\n{block}"
        for block in code_blocks(text, "yaml")
        if not any(fits(yaml.safe_load(block), place) for place in every_block(SCHEMA))
    ]


def fits(value, schema):
    schema = resolved(schema)
    if isinstance(value, list):
        return all(fits(entry, schema.get("items", {})) for entry in value)
    if not isinstance(value, dict):
        return not schema.get("properties")
    entries = schema.get("properties", {})
    others = schema.get("additionalProperties")
    return all(
        fits(entry, entries.get(key, others))
        if key in entries or isinstance(others, dict)
        else False
        for key, entry in value.items()
    )


# --- Files, links, modules -----------------------------------------------------------------------


def files_that_are_not_there(text):
    """Of words in code that begin with a folder of the repository, or are the name of a source file."""
    words = {word for command in commands(text) for word in command.split()}
    paths = {
        word.rstrip(".,:;") for word in words if word.startswith(tuple(f"{f}/" for f in FOLDERS))
    }
    names = {word for word in words if re.fullmatch(r"[\w-]+\.(py|smk|toml|lock)", word)}
    sources = {path.name for folder in (".", *FOLDERS) for path in files_of(ROOT / folder)}
    missing = [
        path
        for path in paths - {"config/mine.yaml"}  # which `snakemake own` writes
        if not list(ROOT.glob(PLACEHOLDER.sub("*", path).rstrip("/")))
    ]
    return [f"there is no {path}" for path in sorted([*missing, *names - sources])]


def files_of(folder):
    return folder.glob("*") if folder == ROOT else folder.rglob("*")


def results_that_no_rule_makes(text):
    """Of `runs/{run}/X` and the like in code: the rules or their scripts have an X."""
    found = []
    for span in inline_code(text):
        match = re.match(r"(?:results/)?runs/(?:\{run\}|[\w.-]+-[\w.-]+)/([\w{}-]+)", span)
        if match:
            name = PLACEHOLDER.sub("", match[1])
            if not re.search(rf"[/\"]{name}(?=[./\"{{])", RULES_TEXT + SCRIPTS_TEXT):
                found.append(f"no rule makes {span}")
    return found


def links_that_lead_nowhere(text, folder):
    """Of relative links and their anchors, as GitHub resolves them."""
    found = []
    for match in LINK.finditer(SPAN.sub("", BLOCK.sub("", text))):
        address, _, anchor = (match[1] or match[2]).partition("#")
        if re.match(r"[a-z]+:", address):
            continue
        path = (folder / address).resolve() if address else None
        if path is not None and not path.exists():
            found.append(f"there is no {address}")
        elif anchor and anchor not in anchors(text if path is None else path.read_text()):
            found.append(f"there is no heading for {match[0]}")
    return found


def anchors(text):
    """Anchors that GitHub gives the headings of a page."""
    found = []
    for heading in re.findall(r"^#+ +(.*?) *$", BLOCK.sub("", text), re.M):
        plain = re.sub(r"\[([^]]*)\]\([^)]*\)|`|\*", r"\1", heading).lower()
        slug = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        repeated = found.count(slug)
        found.append(f"{slug}-{repeated}" if repeated else slug)
    return found


def modules_that_are_not_there(text):
    """Of imports from the library in code blocks, and of the directives of the API reference."""
    found = []
    for module in re.findall(r"^::: ([\w.]+)", text, re.M):
        if source_of(module) is None:
            found.append(f"there is no module {module}")
    for block in code_blocks(text, "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and node.module.startswith("sft_interactions"):
                source = source_of(node.module)
                names = defined_in(source) if source else set()
                found += [
                    f"there is no {node.module}.{alias.name}"
                    for alias in node.names
                    if alias.name not in names and source_of(f"{node.module}.{alias.name}") is None
                ]
    return found


def source_of(module):
    stem = PACKAGES / module.replace(".", "/")
    return next((p for p in (stem.with_suffix(".py"), stem / "__init__.py") if p.is_file()), None)


def defined_in(path):
    """Names that a module defines or imports."""
    names = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.ImportFrom):
            names |= {alias.asname or alias.name for alias in node.names}
    return names


# --- Commands ------------------------------------------------------------------------------------


def make_targets_that_are_not_there(text):
    named = [re.match(r"make ([a-z][\w-]*)$", command) for command in commands(text)]
    return [f"the Makefile has no {m[1]}" for m in named if m and m[1] not in MAKE_TARGETS]


def snakemake_commands_that_fail(text):
    """Options that Snakemake does not know; targets that are no rule and no file of the default study."""
    found = []
    for command in commands(text):
        if not re.match(r"snakemake( |$)", command):
            continue
        words = shlex.split(re.split(r" [>|&]", command)[0])[1:]
        try:
            arguments = snakemake_parser().parse_args(words)
        except SystemExit:
            found.append(f"Snakemake does not take: {command}")
            continue
        rules = set(arguments.allowed_rules or [])
        targets = {target for target in arguments.targets if target not in RULES}
        found += [f"there is no rule {rule}: {command}" for rule in rules - RULES]
        found += [f"nothing makes {target}: {command}" for target in targets - outputs()]
    return found


@cache
def snakemake_parser():
    return get_argument_parser()


@cache
def outputs():
    """Every file of the default study, as Snakemake plans it."""
    command = [sys.executable, "-m", "snakemake", "--summary", "all", "report"]
    planned = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return {line.partition("\t")[0] for line in planned.splitlines()}


# --- Tests ---------------------------------------------------------------------------------------

CHECKS = [
    rules_that_are_not_there,
    rules_in_tables_that_are_not_there,
    rows_of_no_table,
    rules_that_take_no_gpu,
    environments_of_other_rules,
    config_keys_that_are_not_there,
    settings_that_are_not_there,
    configs_that_do_not_fit,
    files_that_are_not_there,
    results_that_no_rule_makes,
    modules_that_are_not_there,
    make_targets_that_are_not_there,
    snakemake_commands_that_fail,
]
WRONG = {
    rules_that_are_not_there: "the rules `fig1` and `fig99`; `snakemake --set-resources bake:mem_mb=1`",
    rules_in_tables_that_are_not_there: "| rule | s |\n|---|---|\n| `stages` | 1 |\n| bake, all | 2 |\n",
    rows_of_no_table: "| a | b |\n|---|---|\n| 1 | 2 |\n\n| 3 | 4 |\n",
    rules_that_take_no_gpu: "The GPU is for `finetune`, then for `metrics`.",
    environments_of_other_rules: "| `data.yaml` | wheel, metrics | no torch |",
    config_keys_that_are_not_there: "`players.m` and `runs.{run}.sed`; `inference.method: fast`",
    settings_that_are_not_there: "`baking: slow` beside `unit: word` and `gpu: 1`",
    configs_that_do_not_fit: "```yaml\nruns:\n  a-b: {dataset: c, sed: 1}\n```\n",
    files_that_are_not_there: "`docs/nowhere.md`, `nowhere.py`, `workflow/*/nowhere.yaml`",
    results_that_no_rule_makes: "`runs/{run}/bread/step-0.parquet` of `runs/{run}/metrics`",
    modules_that_are_not_there: "::: sft_interactions.bakery\n\n::: sft_interactions.config\n",
    make_targets_that_are_not_there: "`make bread`, then `make test`",
    snakemake_commands_that_fail: "`snakemake --cores 1 results/bread.pdf`, `snakemake --bake`",
}


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_what_the_pages_name_is_there(check):
    problems = [
        f"{page.relative_to(ROOT)}: {problem}"
        for page in [*PAGES, *PROFILES]
        for problem in check(page.read_text())
    ]
    assert not problems, "\n".join(problems)


def test_links_lead_somewhere():
    problems = [
        f"{page.relative_to(ROOT)}: {problem}"
        for page in LINKED_PAGES
        for problem in links_that_lead_nowhere(page.read_text(), page.parent)
    ]
    assert not problems, "\n".join(problems)


@pytest.mark.parametrize("path", PROFILES, ids=lambda path: path.parent.name)
def test_profiles_name_rules(path):
    profile = yaml.safe_load(path.read_text())
    assert {*profile.get("set-resources", {}), *profile.get("groups", {})} <= RULES


@pytest.mark.slow
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_a_wrong_name_is_found(check):
    assert check(WRONG[check])


@pytest.mark.slow
# torch warns of pinned memory on a machine without a GPU.
@pytest.mark.filterwarnings("ignore:'pin_memory' argument is set as true:UserWarning")
def test_the_page_on_the_library_runs(tmp_path, monkeypatch, tiny_models, chat_tokenizer):
    folder = tmp_path / "results" / "models" / "smollm2"
    tiny_models["llama"].save_pretrained(folder)
    chat_tokenizer.save_pretrained(folder)
    monkeypatch.chdir(tmp_path)
    names = {}
    for block in code_blocks((ROOT / "docs" / "library.md").read_text(), "python"):
        exec(compile(block, "docs/library.md", "exec"), names)
    assert (tmp_path / "interactions.png").is_file()
    assert names["callback"].table["step"].to_list() == [0, 2, 4, 6]
    assert names["callback"].problem is None
    assert {path.stem for path in (tmp_path / "my_run" / "interactions").iterdir()} == {
        *("table", "interactions", "log_odds")
    }
    assert names["found"].and_effects[0].tolist() == pytest.approx([0, 1, 1, 1])


def test_every_metric_is_listed():
    (path,) = ROOT.glob("results/reference/tweets/runs/smollm2-*/metrics.parquet")
    metrics = set(pl.read_parquet(path)["metric"])
    assert len(metrics) == 30
    assert not metrics - set(inline_code((ROOT / "docs" / "tables.md").read_text()))


def test_a_cell_too_many_is_found():
    assert rows_of_no_table("| a | b |\n|---|---|\n| 1 | `x|y` |\n")
    assert not rows_of_no_table("| a | b |\n|---|---|\n| 1 | x\\|y |\n\ntext\n")


def test_a_wrong_link_is_found(tmp_path):
    (tmp_path / "page.md").write_text("# One heading\n")
    good = "[a](page.md), [b](page.md#one-heading), [c](#here), [d](https://example.org)\n# Here\n"
    assert links_that_lead_nowhere(good, tmp_path) == []
    wrong = "[a](other.md), [b](page.md#two), [c](#there)\n# Here\n"
    assert len(links_that_lead_nowhere(wrong, tmp_path)) == 3
