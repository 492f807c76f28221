"""The public names of the package, and what importing it costs."""

import subprocess
import sys

import sft_interactions


def test_every_public_name_is_there():
    for name in sft_interactions.__all__:
        assert getattr(sft_interactions, name) is not None
        # Also after its module has been imported, which sets attributes of the package.
        assert callable(getattr(sft_interactions, name)) or name == "__version__"


def test_an_unknown_name_is_an_attribute_error():
    assert not hasattr(sft_interactions, "no_such_name")


def test_importing_the_package_loads_neither_torch_nor_matplotlib():
    code = (
        "import sys, sft_interactions as si; si.extract; si.select_salient; "
        "print(sorted({'torch', 'transformers', 'matplotlib', 'snakemake'} & set(sys.modules)))"
    )
    path = sft_interactions.__path__[0].rpartition("/")[0]
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": path, "PATH": ""},
    )
    assert done.stdout.strip() == "[]"
