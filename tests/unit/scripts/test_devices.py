from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[3] / "workflow" / "scripts"
OF_DEVICES = [path for path in sorted(SCRIPTS.glob("*.py")) if "pick_device(" in path.read_text()]


def test_four_scripts_use_a_device():
    assert [path.stem for path in OF_DEVICES] == [
        "finetune",
        "inference",
        "losses_of_step",
        "mask_embedding",
    ]


@pytest.mark.parametrize("script", OF_DEVICES, ids=lambda path: path.stem)
def test_a_device_that_is_not_there_is_told_before_anything_is_read(script):
    text = script.read_text()
    assert text.index("= pick_device(") < text.index("snakemake.input")
