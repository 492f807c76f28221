"""Write a study of a tiny LLM and a dozen sentences, to run anywhere. Usage: study.py FOLDER"""

import copy
import json
import sys
from pathlib import Path

import yaml
from tiny_models import build_model, build_tokenizer
from tiny_study import CONFIG, ROWS

folder = Path(sys.argv[1]).resolve()
build_model("llama").save_pretrained(folder / "llama")
build_tokenizer(320, chat=True, bos=True).save_pretrained(folder / "llama")
(folder / "lines.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
config = copy.deepcopy(CONFIG)
config["models"] = {"llama": {"source": f"path:{folder / 'llama'}"}}
config["datasets"]["lines"]["source"] = f"path:{folder / 'lines.jsonl'}"
config["finetune"]["checkpoints"] = [0, 3]
config["runs"] = {"llama-tiny": {"dataset": "lines"}}
(folder / "config.yaml").write_text(yaml.safe_dump(config))
