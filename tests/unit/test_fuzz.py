"""Random configs, files and folders: read, or refused in one line; nothing else may come of them.

``FUZZ_EXAMPLES=5000 pytest tests/unit/test_fuzz.py`` tries more than the usual few.
"""

import copy
import json
import os
import shutil

import polars as pl
import pytest
from bad_input import assert_one_line
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trainer_folders import write_checkpoint

from sft_interactions import config_file, tables
from sft_interactions.config import ConfigError, resolve
from sft_interactions.data.reading import load_rows
from sft_interactions.own_run.heldout import read_heldout
from sft_interactions.own_run.trainer_output import find_base, read_output

few = settings(
    max_examples=int(os.environ.get("FUZZ_EXAMPLES", "40")),
    derandomize="FUZZ_EXAMPLES" not in os.environ,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
SOURCE = {"source": "hub:x/d", "prompt": "text", "target": "label"}
VALID = {
    "models": {"a": {"source": "hub:x/a@main"}, "b": {"source": "hub:x/b@main"}},
    "datasets": {"d": {**SOURCE, "train": 4, "validation": 2, "analysis": 2}},
    "finetune": {"steps": 10, "checkpoints": [10, 0, 5]},
    "runs": {"a-d": {"dataset": "d", "reference_run": "b-d"}, "b-d": {"dataset": "d"}},
    "only_runs": ["a-d", "b-d"],
    "salience": {"rule": "max_effect", "threshold": 0.05},
    "players": {"n": 8},
    "bootstrap": {"resamples": 100, "level": 0.9},
    "stability": {"tie_breaks": ["hash-1"]},
    "results": "results",
}
LEAVES = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8)
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=6,
)


def paths(block, before=()):
    for key, value in block.items():
        yield (*before, key)
        if isinstance(value, dict):
            yield from paths(value, (*before, key))


PATHS = list(paths(VALID))


def refused_or_not(read, error=ValueError):
    """Read something; if it is refused, every line of the error must be well formed."""
    told = ""
    try:
        read()
    except error as refusal:
        told = str(refusal) or "nothing"
    for line in filter(None, told.split("\n")):
        assert_one_line(line)


@few
@given(st.sampled_from(PATHS), VALUES)
def test_any_value_at_any_key_of_a_config(path, value):
    config = copy.deepcopy(VALID)
    block = config
    for key in path[:-1]:
        block = block[key]
    block[path[-1]] = value
    refused_or_not(lambda: resolve(config), ConfigError)


# Without a semicolon, which ends the place for assert_one_line.
KEYS = st.text(st.characters(exclude_characters=";"), max_size=6)


@few
@given(st.sampled_from(PATHS), KEYS, VALUES)
def test_any_further_key_in_a_config(path, key, value):
    config = copy.deepcopy(VALID)
    block = config
    for part in path:
        if isinstance(block[part], dict):
            block = block[part]
    block[key] = value
    refused_or_not(lambda: resolve(config), ConfigError)


YAML = st.text(alphabet="ab01-:[]{}&*!|>?,.#'\"\\ \n\t~<%@`é\u00a0\u2028", max_size=40)


@few
@given(YAML.map(str.encode) | st.binary(max_size=30))
def test_any_text_as_a_config_file(tmp_path, content):
    path = tmp_path / "config.yaml"
    path.write_bytes(content)
    refused_or_not(lambda: config_file.read([path]), ConfigError)


ROWS = st.lists(st.dictionaries(st.sampled_from(["text", "label", "x"]), VALUES), max_size=4)
FILES = (
    ROWS.map(lambda rows: "".join(json.dumps(row) + "\n" for row in rows).encode())
    | ROWS.map(lambda rows: json.dumps(rows).encode())
    | st.text(alphabet='text,label"\n\r\t{}[]:01é', max_size=40).map(
        lambda t: f"text,label\n{t}".encode()
    )
    | st.binary(max_size=40)
)


@few
@given(FILES, st.sampled_from(["jsonl", "json", "csv", "tsv", "parquet"]))
def test_any_content_of_a_data_file(tmp_path, content, form):
    path = tmp_path / f"rows.{form}"
    path.write_bytes(content)
    dataset = {**SOURCE, "source": f"path:{path}", "filter": {}, "instruction": "{prompt}"}
    refused_or_not(lambda: load_rows(dataset))


@few
@given(FILES, st.sampled_from(["jsonl", "json", "csv", "tsv", "parquet"]))
def test_any_content_of_a_heldout_file(tmp_path, content, form):
    path = tmp_path / f"rows.{form}"
    path.write_bytes(content)
    refused_or_not(lambda: read_heldout(path, {}))


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trainer") / "output"
    for step in (10, 20):
        write_checkpoint(folder, step)
    return folder


@few
@given(
    st.sampled_from(["trainer_state.json", "adapter_config.json"]),
    st.sampled_from(
        [
            "log_history",
            "global_step",
            "base_model_name_or_path",
            "revision",
            "peft_type",
            "r",
            "new",
        ]
    ),
    VALUES | st.lists(st.fixed_dictionaries({"step": VALUES, "eval_loss": VALUES}), max_size=2),
)
def test_any_value_in_what_a_trainer_notes(output, name, key, value):
    path = output / "checkpoint-20" / name
    before = path.read_bytes()
    path.write_text(json.dumps({**json.loads(before), key: value}))
    try:
        refused_or_not(lambda: find_base(read_output(output)))
    finally:
        path.write_bytes(before)


@few
@given(
    st.sampled_from(["trainer_state.json", "adapter_config.json"]),
    st.binary(max_size=30) | VALUES.map(lambda value: json.dumps(value).encode()),
)
def test_any_content_of_what_a_trainer_notes(output, name, content):
    path = output / "checkpoint-20" / name
    before = path.read_bytes()
    path.write_bytes(content)
    try:
        refused_or_not(lambda: find_base(read_output(output)))
    finally:
        path.write_bytes(before)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    path = tmp_path_factory.mktemp("table") / "training.parquet"
    rows = [(step, 2.0 / step, 1.0, 1e-4) for step in range(1, 20)]
    columns = tables.TRAINING.columns
    frame = pl.DataFrame(
        {name: [row[min(i, 3)] for row in rows] for i, name in enumerate(columns)}, strict=False
    ).cast(dict(columns))
    tables.write(frame, path, tables.TRAINING, created_by="finetune", inputs_digest="0" * 16)
    return path


@few
@given(st.data())
def test_any_damage_to_a_table(table, data):
    content = table.read_bytes()
    place = data.draw(st.integers(0, len(content) - 1))
    cut = data.draw(st.booleans())
    other = bytes([content[place] ^ data.draw(st.integers(1, 255))])
    damaged = content[:place] if cut else content[:place] + other + content[place + 1 :]
    copied = shutil.copy(table, table.with_name("damaged.parquet"))
    with open(copied, "wb") as file:
        file.write(damaged)
    with pytest.raises(ValueError, match=r"damaged\.parquet: ") as error:
        tables.read(copied, tables.TRAINING)
    assert_one_line(error.value)
