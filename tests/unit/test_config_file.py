"""Reading config files: what is meant, or one line with file, line and a fix."""

import json
import os
import re
from pathlib import Path

import pytest
import yaml
from bad_input import assert_one_line, refused

from sft_interactions.config import ConfigError, find_place, resolve
from sft_interactions.config_file import (
    check_bookkeeping,
    check_command_line,
    check_owner,
    check_profiles,
    check_rerun_triggers,
    check_unchanged,
    note_owner,
    read,
)

ROOT = Path(__file__).parents[2]


def write(folder, text, name="my.yaml"):
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0500", 500),
        ("010", 10),
        ("0o17", 15),
        ("0x1F", 31),
        ("5e-4", 5e-4),
        ("5E3", 5000.0),
        ("1.", 1.0),
        ("+5", 5),
        ("no", "no"),
        ("yes", "yes"),
        ("on", "on"),
        ("off", "off"),
        ("y", "y"),
        ("1:30", "1:30"),
        ("2025-01-01", "2025-01-01"),
        ("2025-01-01 10:00:00", "2025-01-01 10:00:00"),
        ("1_000", "1_000"),
        ("", None),
        ("!!str 5", "5"),
        ("true", True),
        ("False", False),
        ("~", None),
        ("null", None),
        ("'5e-4'", "5e-4"),
        ("[no, 0500, 1e-5]", ["no", 500, 1e-5]),
        ("{a: {b: 2}}", {"a": {"b": 2}}),
        ("नमस्ते", "नमस्ते"),
        ('"a\\tb"', "a\tb"),
        ("|-\n  two\n  lines\n", "two\nlines"),
        (">-\n  one\n  line\n", "one line"),
        ('"a line\\n"', "a line\n"),
        ("'\u201cquoted\u201d'", "\u201cquoted\u201d"),
        ("a \u201cb\u201d", "a \u201cb\u201d"),
        ('"\u00a0"', "\u00a0"),
        ("a\u00a0b", "a\u00a0b"),
    ],
)
def test_a_value_is_what_it_looks_like(tmp_path, text, value):
    config, _ = read([write(tmp_path, f"key: {text}\n")])
    assert config == {"key": value}
    assert type(config["key"]) is type(value)


LINE_END = (
    "ends with a line end, as | and > keep it; write |- or >-, or the text between double quotes with \\n "
    "if it is meant"
)
TYPOGRAPHIC = (
    "are a part of the text, as programs for writing set them; write straight quotation marks"
)
UNSEEN = (
    "begins or ends with a character that cannot be seen; remove it, or put the text between straight "
    "quotation marks if it is meant"
)
TAGGED = "has a tag before it; write the value without the tag"
PASTED = (
    "not YAML: a blank at its beginning or after its colon is none of YAML's, as web pages have them; "
    "write plain blanks"
)


@pytest.mark.bad_input(of="config")
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed: 1\nseed: 2\n", "line 2: the key seed stands twice; keep one of the two"),
        ("a:\n  b: 1\n  c: 2\n  b: 3\n", "line 4: the key b stands twice; keep one of the two"),
        ("a:\n  200: x\n  '200': y\n", "line 3: the key 200 stands twice; keep one of the two"),
        ("a:\n  0500: x\n  500: y\n", "line 3: the key 500 stands twice; keep one of the two"),
        (
            "a:\n\t- b\n",
            "line 2: not YAML: found character '\\t' that cannot start any token; correct "
            "that line",
        ),
        (
            "a: 1\n b: 2\n",
            "line 2: not YAML: mapping values are not allowed here; correct that line",
        ),
        (
            "a: [1\n",
            "line 2: not YAML: expected ',' or ']', but got '<stream end>'; correct that line",
        ),
        ("a: 1\n---\nb: 2\n", "line 2: not YAML: but found another document; correct that line"),
        ("a: *x\n", "line 1: not YAML: found undefined alias 'x'; correct that line"),
        ("a: &x\n  b: *x\n", "line 1: a block holds itself; remove the alias"),
        ("a: &x\n- 1\n- - *x\n", "line 3: a block holds itself; remove the alias"),
        ("a: &x {b: [&y {c: *x}]}\n", "line 1: a block holds itself; remove the alias"),
        ("a: .nan\n", "line 1: a: nan is not a finite number; write a finite one"),
        ("a:\n- 1\n- -.inf\n", "line 3: a.1: -inf is not a finite number; write a finite one"),
        ("a: " + "9" * 5000, "line 1: a: a number of 5000 digits; write a shorter one"),
        ("a: .Inf\n", "line 1: a: inf is not a finite number; write a finite one"),
        ("a: -.INF\n", "line 1: a: -inf is not a finite number; write a finite one"),
        ("a: .NaN\n", "line 1: a: nan is not a finite number; write a finite one"),
        ("a: 1\nb: !!bool yes\n", f"line 2: b: 'yes' {TAGGED}"),
        ("a: [!!int 0b11]\n", f"line 1: a.0: '0b11' {TAGGED}"),
        ("a: !!float foo\n", f"line 1: a: 'foo' {TAGGED}"),
        ("a: !!str\n", f"line 1: a: '' {TAGGED}"),
        ("a: ! 5\n", f"line 1: a: '5' {TAGGED}"),
        ("a: &x !!int '5'\nb: *x\n", f"line 1: a: '5' {TAGGED}"),
        ("!!int foo: 1\n", f"line 1: a key: 'foo' {TAGGED}"),
        ("!!merge foo: {a: 1}\n", f"line 1: a key: 'foo' {TAGGED}"),
        ("a: !x 1\n", "line 1: a: the tag !x is not known here; remove it"),
        ("a: !x {b: 1}\n", "line 1: a: the tag !x is not known here; remove it"),
        (
            "a: &a {x: 1}\nb: &b {x: 2}\nc:\n  <<: *a\n  y: 1\n  <<: *b\n",
            "line 6: the key << stands twice; write one with both blocks, as in <<: [*a, *b]",
        ),
        ("a:\n  <<: 3\n", "line 2: << names no block of keys; correct it"),
        ("? [a]\n: 1\n", "line 1: the key that is a block is not a text; put it in quotes"),
        (
            'a:\n  b: ["\\\\d", "\\bno\\b"]\n',
            "line 2: a.b.1: between double quotes \\b is the character '\\x08'; use single quotes, or "
            "write \\\\b",
        ),
        ("a:\n  b: |\n    x\n", f"line 2: a.b: {LINE_END}"),
        ("a: >\n  x\n", f"line 1: a: {LINE_END}"),
        (
            "a: 1\nb: \u201cx\u201d\n",
            f"line 2: b: the quotation marks of \u201cx\u201d {TYPOGRAPHIC}",
        ),
        (
            "b: [\u201ex\u201c]\n",
            f"line 1: b.0: the quotation marks of \u201ex\u201c {TYPOGRAPHIC}",
        ),
        ("a: x\u00a0\n", f"line 1: a: 'x\\xa0' {UNSEEN}"),
        ("a: \u200bx\n", f"line 1: a: '\\u200bx' {UNSEEN}"),
        ("\u00a0a: 1\n", f"line 1: a key: '\\xa0a' {UNSEEN}"),
        ("a:\n\u00a0 b: 1\n", f"line 2: a key: '\\xa0 b' {UNSEEN}"),
        ("a: 1\nb:\n\u00a0 - 1\nc: 2\n", f"line 3: {PASTED}"),
        ("a: 1\nb:\u00a05\n", f"line 2: {PASTED}"),
        ("true: 1\n", "line 1: the key true is not a text; put it in quotes"),
        ("1.5: 1\n", "line 1: the key 1.5 is not a text; put it in quotes"),
        ("a: 1\nb: \xe9t\xe9\n".encode("latin-1"), "line 2: not UTF-8; save the file as UTF-8"),
    ],
)
def test_what_has_no_meaning_is_refused_with_its_line(tmp_path, text, message):
    path = write(tmp_path, text)
    with refused(".", ConfigError) as error:
        read([path])
    assert str(error.value) == f"{path}, {message}"


@pytest.mark.bad_input(of="config")
@pytest.mark.parametrize("text", ["", "- a\n", "text\n"])
def test_a_file_without_keys_is_refused(tmp_path, text):
    path = write(tmp_path, text)
    with refused("holds no keys; write `key: value` lines"):
        read([path])


@pytest.mark.bad_input(of="config")
def test_a_file_that_is_not_there(tmp_path):
    with refused(r"no\.yaml: No such file or directory; name a config"):
        read([tmp_path / "no.yaml"])


def test_a_byte_order_mark_is_not_part_of_the_first_key(tmp_path):
    assert read([write(tmp_path, "\ufeffseed: 1\n")])[0] == {"seed": 1}


def test_json_is_yaml(tmp_path):
    content = {"a": {"b": [1, 2.5, None, True, "x: y # z"]}, "c": "\n\t\u00e9"}
    path = write(tmp_path, json.dumps(content, indent=2), "my.json")
    assert read([path])[0] == content


def test_merge_keys_and_aliases(tmp_path):
    text = "base: &base {a: 1, b: 2}\nmine:\n  <<: *base\n  b: 3\nsame: *base\n"
    config, _ = read([write(tmp_path, text)])
    assert config == {
        "base": {"a": 1, "b": 2},
        "mine": {"b": 3, "a": 1},
        "same": {"a": 1, "b": 2},
    }


def test_of_blocks_merged_by_one_key_the_first_counts(tmp_path):
    text = "a: &a {x: 1}\nb: &b {x: 2, y: 3}\nc:\n  <<: [*a, *b]\n"
    assert read([write(tmp_path, text)])[0]["c"] == {"x": 1, "y": 3}


def test_files_and_command_line_are_laid_over_one_another(tmp_path):
    first = write(tmp_path, "a: {b: 1, c: 2}\nd: [1, 2]\n", "first.yaml")
    second = write(tmp_path, "\na:\n  b: 3\n", "second.yaml")
    config, places = read([first, second], {"d": [3], "e": {1: "x"}})
    assert config == {"a": {"b": 3, "c": 2}, "d": [3], "e": {"1": "x"}}
    assert places["a.b"] == f"{second}, line 3"
    assert places["a.c"] == f"{first}, line 1"
    assert places["d"] == "--config"


@pytest.mark.bad_input(of="command_line")
@pytest.mark.parametrize(
    ("given", "key"),
    [
        ({"players": {"n": "2"}}, "players.n"),
        ({"finetune": {"checkpoints": [0, "2"]}}, "finetune.checkpoints"),
        ({"finetune": {"learning_rate": "1e-4"}}, "finetune.learning_rate"),
        ({"datasets": {"tweets": {"balance": "true"}}}, "datasets.tweets.balance"),
        ({"datasets": {"tweets": {"train": "5"}}}, "datasets.tweets.train"),
    ],
)
def test_a_number_in_braces_is_answered_with_where_to_write_it(given, key):
    config, places = read([ROOT / "config" / "config.yaml"], given)
    fix = "takes numbers, true and false for text: write them into a second config file"
    with refused(rf"^--config: {re.escape(key)}\S*: .*{fix}"):
        resolve(config, places)


@pytest.mark.bad_input(of="command_line")
@pytest.mark.parametrize("given", [{"only_runs": "smollm2-tweets"}, {"players": {"choice": "2"}}])
def test_other_texts_of_the_command_line_have_no_such_fix(given):
    config, places = read([ROOT / "config" / "config.yaml"], given)
    with refused("^--config: ") as caught:
        resolve(config, places)
    assert "braces" not in str(caught.value)


@pytest.mark.bad_input(of="command_line")
@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        (["--configfile", "a.yaml", "--configfile", "b.yaml"], "--configfile"),
        (["--configfile=a.yaml", "-n", "--configfiles", "b.yaml"], "--configfile"),
        (["--config", "seed=5", "--config", "results=x"], "--config"),
        (["-C", "seed=5", "-n", "--config", "results=x"], "--config"),
    ],
)
def test_an_option_of_the_config_is_given_once(arguments, option):
    """Of two Snakemake takes the last one, and says nothing."""
    check_command_line(["snakemake", "--configfile", "a.yaml", "b.yaml", "-C", "seed=5", "x=1"])
    with refused(f"^{option} is given 2 times, .* after one {option}$"):
        check_command_line(["snakemake", *arguments])


@pytest.mark.bad_input(of="command_line")
@pytest.mark.parametrize(
    "arguments",
    [
        ["--config", "seed=5", "results=x", "seed=6"],
        ["--config", "seed=5", "seed=5", "-n"],
        ["-C", "x=seed=1", "seed=5", "seed="],
        ["--cores", "1", "--config=seed=5", "seed=6"],
    ],
)
def test_a_key_of_the_command_line_is_given_once(arguments):
    """Of two Snakemake takes the last one, and says nothing."""
    check_command_line(["snakemake", "seed=1", "--config", "seed=5", "x=seed=1", "-j", "seed=2"])
    check_command_line(["snakemake", "--configfile", "seed=1", "seed=1"])
    with refused("^--config: seed= is given 2 times, .*; drop all but one$"):
        check_command_line(["snakemake", *arguments])


@pytest.mark.bad_input(of="command_line")
@pytest.mark.parametrize("option", ["--cleanup-metadata", "--cm"])
def test_what_a_table_was_made_of_is_not_forgotten(option):
    with refused(rf"^{option}: tables of an older config .*; drop the opt"):
        check_command_line(["snakemake", "--cores", "1", option, "results/x.parquet"])


@pytest.mark.bad_input(of="command_line")
@pytest.mark.parametrize("form", ["--profile NAME", "--workflow-profile=NAME", "shell", "home"])
def test_keys_of_a_profile_are_not_dropped(tmp_path, form):
    """Snakemake takes the config of the command line in place of that of a profile."""
    folder = tmp_path / "snakemake" / "mine"
    folder.mkdir(parents=True)
    name = "mine" if form == "home" else str(folder)
    named = {"home": "--profile NAME", "shell": ""}.get(form, form).replace("NAME", name).split()
    shell = {"XDG_CONFIG_HOME": str(tmp_path)}
    shell |= {"SNAKEMAKE_PROFILE": name} if form == "shell" else {}
    file = folder / "config.v9+.yaml"
    file.write_text("cores: 2\n# config: no\nset-resources:\n  config: 1\n")
    check_profiles(["snakemake", *named, "--config", "seed=5"], shell)
    file.write_text("cores: 2\nconfig:\n  - seed=7\n")
    check_profiles(["snakemake", *named, "--configfile", "a.yaml"], shell)
    check_profiles(["snakemake", *named, "--mode", "remote", "--config", "seed=7"], shell)
    with refused(r"its config would be dropped, .*; write all val") as e:
        check_profiles(["snakemake", *named, "--config", "results=x"], shell)
    assert str(e.value).startswith(f"{file}: ")


@pytest.mark.bad_input(of="command_line")
@pytest.mark.parametrize(
    ("place", "named"),
    [
        ("profiles/default/config.yaml", []),
        ("profiles/mine/config.yaml", ["--workflow-profile", "mine"]),
        ("mine/profile.v9+.yaml", ["--profile", "other", "mine"]),
        ("mine/profile.yaml", ["--profile", "mine/profile.yaml"]),
    ],
    ids=["found by itself", "of the workflow", "the second of two", "a file"],
)
def test_a_profile_is_found_where_snakemake_finds_it(tmp_path, monkeypatch, place, named):
    """Also from another folder, as with --directory."""
    (tmp_path / place).parent.mkdir(parents=True)
    (tmp_path / place).write_text("config:\n  - seed=7\n")
    (tmp_path / "elsewhere").mkdir()
    for folder in (tmp_path, tmp_path / "elsewhere"):
        monkeypatch.chdir(folder)
        with refused(r"its config would be dropped"):
            check_profiles(["snakemake", *named, "--config", "seed=5"], {"PWD": str(tmp_path)})
    check_profiles(["snakemake", *named, "--config", "seed=5"], {})
    if not named:
        words = ["snakemake", "--workflow-profile", "none", "--config", "seed=5"]
        check_profiles(words, {"PWD": str(tmp_path)})


@pytest.mark.bad_input(of="command_line")
@pytest.mark.parametrize("key", ["configfile", "configfiles"])
def test_config_files_of_a_profile_are_not_dropped(tmp_path, key):
    file = tmp_path / "config.yaml"
    file.write_text(f"cores: 2\n{key}:\n  - mine.yaml\n")
    named = ["snakemake", "--profile", str(tmp_path)]
    check_profiles(named, {})
    check_profiles([*named, "--config", "seed=5"], {})
    check_profiles([*named, "--mode", "remote", "--configfile", "a.yaml"], {})
    for option in ("--configfile", "--configfiles"):
        with refused(rf"its {key} would be dropped, .*; write all files"):
            check_profiles([*named, option, "a.yaml"], {})


@pytest.mark.bad_input(of="command_line")
@pytest.mark.parametrize(
    ("triggers", "missing"),
    [
        (["mtime"], "params and input"),
        (["mtime", "code", "input"], "params"),
        (["params", "input"], "mtime"),
    ],
)
def test_a_change_of_the_config_is_not_overlooked(triggers, missing):
    check_rerun_triggers(["input", "mtime", "params"])
    check_rerun_triggers({"mtime", "params", "input", "software-env", "code"})
    with refused(rf"^--rerun-triggers: without {missing} tables of an older config .*drop"):
        check_rerun_triggers(triggers)


@pytest.mark.bad_input(of="command_line")
@pytest.mark.parametrize(
    ("is_touching", "keeps_metadata", "message"),
    [
        (True, True, "^--touch: .*; drop the option"),
        (False, False, "^--drop-metadata: .*; drop the op"),
    ],
)
def test_what_a_table_was_made_of_is_kept(is_touching, keeps_metadata, message):
    check_bookkeeping(is_touching=False, keeps_metadata=True)
    with refused(message):
        check_bookkeeping(is_touching=is_touching, keeps_metadata=keeps_metadata)
    with refused(r"^--consider-ancient: .*; drop the option"):
        check_bookkeeping(is_touching=False, keeps_metadata=True, has_ancient=True)


def test_the_innermost_known_place():
    places = {"a": "x, line 1", "a.b": "x, line 2"}
    assert find_place(places, "a.b.c.d") == "x, line 2"
    assert find_place(places, "a.x") == "x, line 1"
    assert find_place(places, "c") is None


@pytest.mark.bad_input(of="config")
def test_errors_of_a_config_have_file_and_line(tmp_path):
    path = write(tmp_path, "seed: -1\nplayers:\n  n: no\nruns: {}\ndatasets: {d: {balance: yes}}\n")
    with pytest.raises(ConfigError) as error:
        resolve(*read([path]))
    lines = str(error.value).splitlines()
    for line in lines:
        assert_one_line(line)
    assert any(line.startswith(f"{path}, line 1: seed: -1 must be at least 0") for line in lines)
    assert any(
        line.startswith(f'{path}, line 3: players.n: "no" must be of type integer')
        for line in lines
    )
    assert any(
        'datasets.d.balance: "yes" must be of type boolean, true or false' in x for x in lines
    )


def test_what_was_wrong_with_yaml_1_1(tmp_path):
    text = "steps: 0500\nname: no\nrate: 5e-4\n"
    assert yaml.safe_load(text) == {"steps": 320, "name": False, "rate": "5e-4"}
    assert read([write(tmp_path, text)])[0] == {"steps": 500, "name": "no", "rate": 5e-4}


@pytest.fixture
def owned(tmp_path, monkeypatch):
    """Results of a study whose config is config/mine.yaml."""
    monkeypatch.chdir(tmp_path)
    note_owner("results", ["config/mine.yaml"], "abc")
    (tmp_path / "results" / "runs").mkdir()
    return tmp_path


def test_a_study_goes_on_in_its_own_folder(owned):
    check_owner("results", ["config/mine.yaml"])
    check_owner("results", [owned / "config" / "mine.yaml"])
    moved = owned.rename(owned.with_name("moved"))
    check_owner(moved / "results", [moved / "config" / "mine.yaml"])
    assert [path.name for path in (moved / "results").iterdir()] == ["made_by.json", "runs"]


@pytest.mark.bad_input(of="command_line")
@pytest.mark.parametrize("files", [["config/copy.yaml"], ["config/mine.yaml", "local.yaml"]])
def test_another_study_is_kept_out(owned, files):
    with refused(r"that of config/mine\.yaml; name another folder") as error:
        check_owner("results", files)
    assert str(error.value).startswith("results: results has the runs of another study")
    (owned / "results" / "made_by.json").unlink()
    check_owner("results", files)


def test_a_folder_without_runs_may_change_hands(owned):
    (owned / "results" / "runs").rmdir()
    check_owner("results", ["config/copy.yaml"])
    note_owner("results", ["config/copy.yaml"], "abc")
    (owned / "results" / "runs").mkdir()
    check_owner("results", ["config/copy.yaml"])


@pytest.mark.bad_input(of="config")
@pytest.mark.parametrize("content", ["", "{}", "[]", '{"configfiles": 1}'])
def test_a_broken_note_is_told(owned, content):
    (owned / "results" / "made_by.json").write_text(content)
    with refused(r"made_by\.json: cannot be understood; delete it"):
        check_owner("results", ["config/mine.yaml"])


@pytest.mark.bad_input(of="command_line")
def test_a_config_that_is_changed_during_its_run_is_refused_in_jobs(owned):
    """Jobs of a batch system read it when they start, and are noted as of the config of the run."""
    check_unchanged("results", "abc")
    with refused(r"is not the one that this run began with .*; start the run"):
        check_unchanged("results", "xyz")
    note_owner("results", ["config/mine.yaml"], "xyz")
    check_unchanged("results", "xyz")


@pytest.mark.parametrize("content", [None, "", "[]", '{"configfiles": ["../config/mine.yaml"]}'])
def test_a_run_that_noted_no_config_is_not_compared(owned, content):
    note = owned / "results" / "made_by.json"
    note.unlink() if content is None else note.write_text(content)
    check_unchanged("results", "abc")


@pytest.mark.bad_input(of="config")
def test_a_config_that_can_be_read_once_is_refused(tmp_path):
    """Such as of ``--configfile <(envsubst < study.yaml)``, which Snakemake has read before."""
    os.mkfifo(tmp_path / "pipe")
    with refused(r"pipe: is a pipe or a folder, .*; write it into a file"):
        read([tmp_path / "pipe"])
