"""What training_args.bin of a trainer tells, and that nothing in it runs."""

import os
import pickle
import random
import re
import zipfile

import pytest
import torch
from trainer_folders import write_checkpoint
from transformers import TrainingArguments

from sft_interactions.own_run.trainer_output import read_output
from sft_interactions.own_run.training_args import NAME, read_training_args, values_of


class SFTConfig:
    """As TRL's, by the settings that are asked for."""

    def __init__(self, **settings):
        self.__dict__ = {"learning_rate": 1e-4, **settings}


class Runs:
    """Writes a file when it is read."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def write_pickle(folder, content):
    with zipfile.ZipFile(folder / NAME, "w") as file:
        file.writestr("training_args/data.pkl", content)


def test_settings_are_those_of_the_training(tmp_path):
    given = TrainingArguments(
        output_dir="out", label_smoothing_factor=0.25, use_cpu=True, seed=7, run_name=None
    )
    torch.save(given, tmp_path / NAME)
    found = read_training_args(tmp_path)
    for name in ("label_smoothing_factor", "seed", "learning_rate", "run_name", "output_dir"):
        assert found[name] == getattr(given, name)
        assert type(found[name]) is type(getattr(given, name))
    assert len(found) > 50


def test_nothing_in_the_file_runs(tmp_path):
    place = tmp_path / "made"
    settings = SFTConfig(label_smoothing_factor=0.1, other=Runs(place))
    torch.save(settings, tmp_path / NAME)
    assert read_training_args(tmp_path) == {"learning_rate": 1e-4, "label_smoothing_factor": 0.1}
    write_pickle(tmp_path, pickle.dumps(Runs(place)))
    assert read_training_args(tmp_path) == {}
    assert not place.exists()
    pickle.loads(pickle.dumps(Runs(place)))  # else it would prove nothing
    assert place.exists()


@pytest.mark.parametrize(
    "content", [b"", b"not a pickle", pickle.dumps([1, 2]), pickle.dumps(SFTConfig())[:-20]]
)
def test_of_a_file_that_cannot_be_read_nothing_is_known(tmp_path, content):
    (tmp_path / NAME).write_bytes(content)
    assert read_training_args(tmp_path) == {}
    write_pickle(tmp_path, content)
    assert read_training_args(tmp_path) == {}
    (tmp_path / NAME).unlink()
    assert read_training_args(tmp_path) == {}


def test_a_damaged_file_says_nothing_or_what_it_said(tmp_path):
    torch.save(SFTConfig(label_smoothing_factor=0.1, run_name="mine"), tmp_path / NAME)
    whole, draw = (tmp_path / NAME).read_bytes(), random.Random(0)
    said = read_training_args(tmp_path)
    for _ in range(300):
        damaged = bytearray(whole)
        for _ in range(3):
            damaged[draw.randrange(len(damaged))] = draw.randrange(256)
        (tmp_path / NAME).write_bytes(damaged)
        assert read_training_args(tmp_path) in ({}, said)


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"label_smoothing_factor": 0.1}, "label_smoothing_factor is 0.1 in .*, and a smoothed"),
        ({"label_smoothing_factor": 0.0, "loss_type": "dft"}, "loss_type is dft in .*, which"),
        ({"label_smoothing_factor": 0.0, "loss_type": "nll"}, None),
        ({}, None),
    ],
)
def test_losses_that_are_no_cross_entropy_are_not_taken(tmp_path, settings, why):
    first = write_checkpoint(tmp_path / "mine", 10)
    last = write_checkpoint(tmp_path / "mine", 20)
    assert read_output(tmp_path / "mine").losses == {10: 1.9, 20: 1.4}
    for folder in (first, last, tmp_path / "mine"):
        torch.save(SFTConfig(**settings), folder / NAME)
        found = read_output(tmp_path / "mine")
        if why is None:
            assert found.losses == {10: 1.9, 20: 1.4}
            assert found.notes == []
        else:
            assert (found.losses, found.losses_from) == ({}, None)
            (note,) = found.notes
            assert note.startswith(f"the losses in {last / 'trainer_state.json'} are not taken: ")
            assert re.search(why, note)
        (folder / NAME).unlink()


def test_a_setting_of_several_checkpoints(tmp_path):
    folders = [write_checkpoint(tmp_path / "mine", step) for step in (10, 20, 30)]
    assert values_of("assistant_only_loss", folders) == set()
    for folder, value in zip(folders, (False, True), strict=False):
        torch.save(SFTConfig(assistant_only_loss=value), folder / NAME)
    assert values_of("assistant_only_loss", folders[:1]) == {False}
    assert values_of("assistant_only_loss", folders) == {False, True}
