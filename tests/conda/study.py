"""Write a study of two tiny LLMs and a dozen sentences, to run from any folder. Usage: study.py FOLDER"""

import sys
from pathlib import Path

import yaml
from kills.study import prepare
from tiny_study import CONFIG, STEPS

folder = Path(sys.argv[1]).resolve()
prepare(folder)
file = folder / "config.yaml"
config = yaml.safe_load(file.read_text())
# A short training does: nothing is stopped in the middle of it.
config["finetune"] = CONFIG["finetune"]
config["runs"]["gemma3-tiny"]["finetune"] = {"checkpoints": STEPS["gemma3-tiny"]}
for given in (*config["models"].values(), *config["datasets"].values()):
    given["source"] = f"path:{folder / given['source'].removeprefix('path:')}"
file.write_text(yaml.safe_dump(config))
