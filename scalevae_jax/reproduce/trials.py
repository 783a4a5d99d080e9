"""What the harness runs: one training with what is measured of it, as commands, at a scale.

`paper` is section 4 with the paper's corpora. `cpu` takes stand-ins at a size whose rows take minutes on two cores.
`smoke` shows, on text that comes with the package, that everything works, and nothing else.
"""

import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from scalevae_jax.core.types import InputError
from scalevae_jax.reproduce import paper
from scalevae_jax.reproduce.paper import ROWS, Row

Overrides = dict[str, Any]


class Corpus(NamedTuple):
    """What stands for a corpus of the paper at a scale."""

    name: str  # of the corpus that is trained on; a folder of --data, or package:NAME
    config: str  # by name
    overrides: Overrides


class Scale(NamedTuple):
    """How large everything is."""

    about: str
    settings: dict[str, Corpus]  # by the paper's corpus; Table 1's rows of one that is not here are left out
    seeds: int
    evaluate: tuple[str, ...]  # flags of the commands
    labels: int  # the most labelled sentences of a probe, where the training split has as many
    draws: int  # of labelled sentences, for each number of them
    text_quality: tuple[str, ...]
    special: dict[str, Overrides]  # of methods whose training is much longer


_SMALL = {
    "model.embedding": 64,
    "model.hidden": 128,
    "model.latent": 32,
    "data.vocab_size": 8000,
    "data.buckets": 4,
    "data.limit_train": 10_000,
    "data.limit_valid": 2000,
    "train.max_epochs": 15,
}
_FEWER = {"data.limit_train": 2000}
_TINY = Corpus("package:tiny", "smoke", {"data.max_words": 34, "data.buckets": 1, "train.batch_size": 32})


SCALES = {
    "paper": Scale(
        "section 4 exactly, five seeds; a GPU or TPU and the paper's corpora are needed",
        {name: Corpus(name, name, {}) for name in ("yahoo", "yelp", "yelp_sentiment")}
        | {"synthetic": Corpus("package:synthetic", "synthetic", {})},
        5,
        ("--iw_samples", "500"),
        10_000,
        5,
        (),
        {},
    ),
    "cpu": Scale(
        "yahoo_sentences for Yahoo, yelp_sentiment for Yelp, the first 10,000 training lines (sa_vae, agg_vae: 2,000), "
        "hidden 128, embedding 64, 8,000 words, 15 epochs, the first 1,000 test sentences, 100 draws; "
        "synthetic: 60 epochs",
        {
            "yahoo": Corpus("yahoo_sentences", "yahoo_sentences", _SMALL),
            "yelp": Corpus("yelp_sentiment", "yelp_sentiment", _SMALL),
            "yelp_sentiment": Corpus("yelp_sentiment", "yelp_sentiment", _SMALL),
            "synthetic": Corpus("package:synthetic", "synthetic", {"train.max_epochs": 60}),
        },
        1,
        ("--iw_samples", "100", "--limit", "1000"),
        10_000,
        5,
        ("--pairs", "200", "--seeds", "10"),
        {"sa_vae": _FEWER, "agg_vae": _FEWER},
    ),
    "captions": Scale(
        "Yahoo's tables on the captions of the package, the first 5,000 training lines (sa_vae, agg_vae: 2,000), "
        "hidden 128, embedding 64, z of 16 dimensions, 12 epochs, the first 500 test sentences, 100 draws; "
        "synthetic: 60 epochs",
        {
            "yahoo": Corpus(
                "package:snli",
                "text",
                {"model.embedding": 64, "model.hidden": 128, "model.latent": 16, "data.vocab_size": 4000}
                | {"data.max_words": 30, "data.buckets": 3, "data.limit_train": 5000, "train.max_epochs": 12},
            ),
            "synthetic": Corpus("package:synthetic", "synthetic", {"train.max_epochs": 60}),
        },
        1,
        ("--iw_samples", "100", "--limit", "500"),
        0,
        0,
        ("--pairs", "200", "--seeds", "10"),
        {"sa_vae": _FEWER, "agg_vae": _FEWER},
    ),
    "smoke": Scale(
        "tiny networks, three epochs of 666 sentences: the figures mean nothing; Table 1 has Yahoo's rows alone",
        {
            "yahoo": _TINY,
            "yelp_sentiment": _TINY,
            "synthetic": Corpus(
                "package:synthetic",
                "synthetic",
                {"model.embedding": 8, "model.hidden": 8, "data.limit_train": 1600, "train.max_epochs": 2},
            ),
        },
        1,
        ("--iw_samples", "5"),
        666,
        2,
        ("--pairs", "10", "--seeds", "2"),
        {},
    ),
}


class Command(NamedTuple):
    """One command of a trial, and the file of the workdir that shows that it is done."""

    module: str
    arguments: tuple[str, ...]
    output: str
    captured: bool = False  # what it prints is the output

    @property
    def command(self) -> str:
        """As one types it."""
        return shlex.join(["python", "-m", f"scalevae_jax.{self.module}", *self.arguments])


class Trial(NamedTuple):
    """A training, its place, and the steps that the tables asked for want of it."""

    row: Row
    setting: Corpus
    seed: int
    workdir: Path
    steps: tuple[Command, ...]
    after: Path | None = None  # the workdir of a trial that has to be done before

    @property
    def name(self) -> str:
        """Also that of the workdir."""
        return self.workdir.name

    @property
    def record(self) -> Path:
        """Where the finished trial's record goes."""
        return self.workdir.parent.parent / "rows" / f"{self.name}.json"


def _name(row: Row, setting: Corpus, seed: int) -> str:
    given = [f"{key}_{value}" for key, value in row.hyperparameters.items()]
    partition = [] if row.partition == "fixed" else [row.partition]
    return "-".join([setting.name.removeprefix("package:"), row.method, *given, *partition, f"seed_{seed}"])


def _training(row: Row, config: str, overrides: Overrides, seed: int, place: str, workdir: Path) -> Command:
    if place:
        overrides = {"data.path": place} | overrides
    overrides |= {"method.name": row.method} | {f"method.{key}": value for key, value in row.hyperparameters.items()}
    if row.partition != "fixed":
        overrides |= {"data.partition": row.partition}
    overrides |= {"train.seed": seed}
    fields = [f"--config.{key}={value}" for key, value in overrides.items()]
    return Command("train", ("--config", config, "--workdir", str(workdir), *fields), "")


WANTED = {
    "table1": "evaluate",
    "table2": "",
    "table3": "evaluate",
    "table4": "probe",
    "table5": "text_quality",
    "table6": "interpolate",
    "figure1": "space",
    "figure2": "space",
}


def _step(wanted: str, scale: Scale, limit: int, workdir: Path, language_model: Path) -> list[Command]:
    at = ("--workdir", str(workdir))
    sizes = ",".join(str(size) for size in paper.SIZES if size <= min(scale.labels, limit or scale.labels))
    if wanted == "interpolate":
        drawn = ("--steps", "5", "--temperature", "1", "--seed")
        return [Command(wanted, (*at, *drawn, str(seed)), f"interpolations_{seed}.txt", True) for seed in (0, 1)]
    made = {
        "evaluate": Command("evaluate", (*at, "--split", "test", *scale.evaluate), "eval_test.json"),
        "probe": Command("probe", (*at, "--sizes", sizes, "--draws", str(scale.draws)), "probe.json"),
        "text_quality": Command(
            "reproduce.text_quality",
            (*at, "--language_model", str(language_model), *scale.text_quality),
            "text_quality.json",
        ),
        "space": Command("reproduce.latent_space", at, "space.json"),
    }
    return [made[wanted]] if wanted else []


def place(setting: Corpus, data: Path | None) -> str:
    """What data.path is set to: a corpus of the package, or a folder of `data`; empty leaves the configuration's."""
    if setting.name.startswith("package:"):
        return setting.name
    return str(data / setting.name) if data else ""


def shown(table: str, scale: Scale, methods: Iterable[str] = ()) -> list[Row]:
    """The rows of a table or figure that there are at this scale, of the methods named (none named is all)."""
    methods = set(methods)
    return [row for row in ROWS[table] if row.corpus in scale.settings and (not methods or row.method in methods)]


def plan(
    tables: Iterable[str], scale: Scale, seeds: int, methods: Iterable[str], data: Path | None, out: Path
) -> list[Trial]:
    """Every training that the tables need, once, those that others wait for before them.

    Raises InputError where a folder of `data` is not there, or no row is left.
    """
    trials: dict[str, Trial] = {}

    def add(row: Row, seed: int, wanted: str, language_model: Path) -> Path:
        setting = scale.settings[row.corpus]
        workdir = out / "runs" / _name(row, setting, seed)
        where = place(setting, data)
        if data and not where.startswith("package:") and not Path(where).is_dir():
            raise InputError(f"--data {data}: no folder {setting.name} in it")
        overrides = setting.overrides | scale.special.get(row.method, {})
        limit = overrides.get("data.limit_train", 0)
        training = _training(row, setting.config, overrides, seed, where, workdir)
        steps = [training, *_step(wanted, scale, limit, workdir, language_model)]
        before = trials.get(workdir.name)
        steps = tuple(dict.fromkeys([*(before.steps if before else ()), *steps]))
        after = language_model if wanted == "text_quality" else before.after if before else None
        trials[workdir.name] = Trial(row, setting, seed, workdir, steps, after)
        return workdir

    for table in tables:
        for row in shown(table, scale, methods):
            for seed in range(seeds):
                judge = out
                if WANTED[table] == "text_quality":
                    judge = add(paper.LANGUAGE_MODEL, 0, "", out)
                add(row, seed, WANTED[table], judge)
    if not trials:
        raise InputError("no row is left: see --list for what a table has at this scale")
    return sorted(trials.values(), key=lambda trial: trial.after is not None)


ARRAYS, NUMBERS = "space.npz", "space.json"


STEPS = "steps.json"  # what the harness writes into the workdir: commands and their seconds
