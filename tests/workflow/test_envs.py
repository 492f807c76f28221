"""The conda environments: pinned like the lock, complete, and enough for the scripts that run in them."""

import importlib.metadata
import re
import sys
from functools import cache
from pathlib import Path

import pytest
import yaml
from imported_names import imported_names
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "workflow" / "scripts"
OWN = (SCRIPTS, ROOT / "workflow")  # where modules of ours lie
ENVIRONMENTS = {path.name: yaml.safe_load(path.read_text()) for path in ROOT.glob("envs/*.yaml")}
RULES = {
    name: body
    for path in sorted(ROOT.glob("workflow/rules/*.smk"))
    for name, body in re.findall(r"^rule (\w+):\n((?:[ \t].*\n|\n)+)", path.read_text(), re.M)
    if "script:" in body
}
DISTRIBUTIONS = importlib.metadata.packages_distributions()
EVERY_ENVIRONMENT = pytest.mark.parametrize("name", ENVIRONMENTS)


def pins(lines):
    found = {}
    for line in lines:
        package, exact, version = line.partition("==")
        assert exact, f"{line} has no exact version"
        found[canonicalize_name(package)] = version
    return found


LOCK = pins(
    line
    for line in (ROOT / "envs" / "requirements.lock").read_text().splitlines()
    if not line.startswith("#")
)


def pip_lines(name):
    return ENVIRONMENTS[name]["dependencies"][-1]["pip"]


def directly_imported(name):
    """The packages above the comment that divides an environment's list."""
    above = (ROOT / "envs" / name).read_text().partition("# what those need")[0]
    return re.findall(r"- ([\w-]+)==", above)


def closure(names):
    """Distributions that the named ones need, themselves included, as installed here."""
    found, left = {}, [Requirement(name) for name in names]
    while left:
        requirement = left.pop()
        name = canonicalize_name(requirement.name)
        extras = {"", *requirement.extras} - found.get(name, set())
        if not extras:
            continue
        found[name] = found.get(name, set()) | extras
        for needed in map(Requirement, importlib.metadata.distribution(name).requires or []):
            marker = needed.marker
            if marker is None or any(marker.evaluate({"extra": extra}) for extra in extras):
                left.append(needed)
    return set(found)


@cache
def imports(path):
    """Third-party modules that a script imports, or what it imports, wherever in the file."""
    third_party, own, left = set(), set(), [path]
    while left:
        found, more = imports_of_file(left.pop())
        third_party |= found
        left += more - own
        own |= more
    return third_party


def imports_of_file(path):
    """Third-party modules, and files of ours, that a file imports, with the packages around them."""
    found, own_files = set(), set()
    for names in (name.split(".") for name in imported_names(path.read_text())):
        paths = {folder.joinpath(*names[:k]) for folder in OWN for k in range(1, len(names) + 1)}
        files = {file for path in paths for file in (path.with_suffix(".py"), path / "__init__.py")}
        of_ours = {file for file in files if file.is_file()}
        own_files |= of_ours
        if not of_ours and names[0] not in sys.stdlib_module_names:
            found.add(names[0])
    return found, own_files


@EVERY_ENVIRONMENT
def test_versions_are_those_of_the_lock(name):
    found = pins(pip_lines(name))
    assert found == {package: LOCK.get(package) for package in found}


@EVERY_ENVIRONMENT
def test_an_environment_pins_all_that_its_packages_need_and_no_more(name):
    # torch pins the CUDA libraries of its build itself, and they are not needed on CPU.
    libraries = ("cuda", "nvidia", "triton")
    needed = {p for p in closure(directly_imported(name)) if not p.startswith(libraries)}
    lines = pip_lines(name)
    missing = sorted(f"{package}=={LOCK.get(package)}" for package in needed - set(pins(lines)))
    surplus = sorted(set(pins(lines)) - needed)
    assert (missing, surplus) == ([], []), f"envs/{name}: add {missing}, remove {surplus}"


@EVERY_ENVIRONMENT
def test_an_environment_lists_nothing_twice(name):
    listed = [canonicalize_name(line.partition("==")[0]) for line in pip_lines(name)]
    assert sorted(listed) == sorted(set(listed))


def test_environments_share_channels_python_and_pip():
    heads = [
        (environment["channels"], environment["dependencies"][:-1])
        for environment in ENVIRONMENTS.values()
    ]
    assert heads == [(["conda-forge", "nodefaults"], ["python=3.11", "pip=26.3"])] * len(heads)


def test_torch_is_in_one_environment_only():
    assert [name for name in ENVIRONMENTS if "torch" in pins(pip_lines(name))] == ["torch.yaml"]


@pytest.mark.parametrize("rule", RULES)
def test_the_environment_of_a_rule_holds_what_its_script_imports(rule):
    environment = re.search(r'conda:\s+"../../envs/([\w.]+)"', RULES[rule])
    assert environment, f"rule {rule} has no conda: directive"
    script = re.search(r'script:\s+"../scripts/([\w.]+)"', RULES[rule])[1]
    held = pins(pip_lines(environment[1]))
    for module in imports(SCRIPTS / script):
        assert any(canonicalize_name(d) in held for d in DISTRIBUTIONS[module]), (
            f"{script} imports {module}, which envs/{environment[1]} lacks"
        )
