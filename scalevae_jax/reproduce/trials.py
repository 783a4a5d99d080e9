"""What the runner runs at each scale: a training and the measurements of it, as command lines.

`paper` is section 4 on the paper's corpora. `small` replaces them by smaller ones and keeps the length of an epoch, so
that a row takes half an hour of one core. `smoke` shows only that everything works.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from scalevae_jax.comparison.trial import OUTPUTS, Command, Record, Trial
from scalevae_jax.config import INIT_FIELDS
from scalevae_jax.core.types import InputError
from scalevae_jax.inference import evaluate
from scalevae_jax.inference.evaluate import EvaluationRequest
from scalevae_jax.methods import method
from scalevae_jax.reproduce import paper
from scalevae_jax.reproduce.paper import ROWS, Row

Overrides = dict[str, Any]  # of fields of a configuration


class Corpus(NamedTuple):
    """The text that stands for one of the paper's corpora."""

    source: str  # a folder of --data, or package:NAME
    config: str  # name of a file of configs/
    overrides: Overrides

    @property
    def name(self) -> str:
        """As it stands in records and in the names of runs."""
        return self.source.removeprefix("package:")


class Scale(NamedTuple):
    """The size of everything."""

    about: str
    corpora: dict[str, Corpus]  # by the paper's name; rows on a corpus that is missing here are left out
    iw_samples: int  # draws of an evaluation
    common: Overrides  # of every training
    test_sentences: int = 0  # of an evaluation, the first so many; 0 is all
    seeds: int = 1
    labels: int = 0  # the most labelled sentences of a probe, where the training split has as many
    draws: int = 0  # of the labelled sentences, for each number of them
    text_quality: tuple[str, ...] = ()  # more arguments of this command
    special: dict[str, Overrides] = {}  # noqa: RUF012 (never changed); of single methods


# 45 to 90 seconds an epoch of 3,129 steps on one core, by the processor. Of the words of the corpora 1.4% (Yelp) and 4%
# (Yahoo) are unknown then; twice as many words would double a step. A language model of Yelp has after 25 epochs the
# nll that it has after 40 with a patience of 5 (37.66 and 37.71).
_SMALL = {
    "model.embedding": 64,
    "model.hidden": 128,
    "model.latent": 32,
    "data.vocab_size": 5000,
    "data.limit_valid": 2000,
    "optim.patience": 2,  # with the paper's 5 the rate of a language model on Yelp was not cut once in 40 epochs
    "train.max_epochs": 25,
    "train.steps_per_dispatch": 10,
}
# One choice for all methods, so that a comparison is of methods alone. The small networks take PyTorch's values: from
# U(-0.01, 0.01) their first means hardly differ, and the factors of Scale-VAE run away.
_PAPER_INIT: Overrides = {"model.encoder_init": "paper", "model.decoder_init": "paper"}
_TORCH_INIT: Overrides = {"model.encoder_init": "torch", "model.decoder_init": "torch"}
_FEWER = {name: {"data.limit_train": 2000} for name in ("sa_vae", "agg_vae")}
_TINY = Corpus("package:tiny", "smoke", {"data.max_words": 34, "data.buckets": 1, "train.batch_size": 32})
_TINY_SYNTHETIC = {"model.embedding": 8, "model.hidden": 8, "data.limit_train": 1600, "train.max_epochs": 2}
_SYNTHETIC = Corpus("package:synthetic", "synthetic", {})

SCALES = {
    "paper": Scale(
        "section 4, initial values U(-0.01, 0.01) except for du_vae, which has PyTorch's (footnote 2), five seeds; "
        "needs a GPU or TPU and the paper's corpora",
        {name: Corpus(name, name, {}) for name in ("yahoo", "yelp", "yelp_sentiment")} | {"synthetic": _SYNTHETIC},
        iw_samples=500,
        common=_PAPER_INIT,
        special={"du_vae": _TORCH_INIT},
        seeds=5,
        labels=10_000,
        draws=5,
    ),
    "small": Scale(
        "yahoo_sentences for Yahoo, yelp_sentiment for Yelp, all training lines (sa_vae, agg_vae: 2,000), hidden 128, "
        "embedding 64, 5,000 words, PyTorch's initial values for every method, patience 2, until five cuts of the "
        "learning rate or 25 epochs, the first 2,000 test sentences, 500 draws; synthetic: 60 epochs",
        {
            "yahoo": Corpus("yahoo_sentences", "yahoo_sentences", _SMALL),
            "yelp": Corpus("yelp_sentiment", "yelp_sentiment", _SMALL),
            "yelp_sentiment": Corpus("yelp_sentiment", "yelp_sentiment", _SMALL),
            "synthetic": _SYNTHETIC._replace(overrides={"train.max_epochs": 60}),
        },
        iw_samples=500,
        common=_TORCH_INIT,
        test_sentences=2000,
        labels=10_000,
        draws=5,
        text_quality=("--pairs", "200", "--seeds", "10"),
        special=_FEWER,
    ),
    "smoke": Scale(
        "tiny networks, PyTorch's initial values for every method, three epochs of 666 sentences: the numbers mean "
        "nothing; Table 1 has only Yahoo's rows",
        {"yahoo": _TINY, "yelp_sentiment": _TINY, "synthetic": _SYNTHETIC._replace(overrides=_TINY_SYNTHETIC)},
        iw_samples=5,
        common=_TORCH_INIT,
        labels=666,
        draws=2,
        text_quality=("--pairs", "10", "--seeds", "2"),
    ),
}


def shown(table: str, scale: Scale, methods: Iterable[str] = ()) -> list[Row]:
    """The rows that a table or figure has at this scale, only those of `methods` if there are any."""
    methods = set(methods)
    return [row for row in ROWS[table] if row.corpus in scale.corpora and (not methods or row.method in methods)]


def matches(record: Record, row: Row, scale: Scale) -> bool:
    """Whether the run is one of the row's: its hyperparameters are the row's, and the method's defaults elsewhere; its
    initial values are the scale's."""
    overrides = scale.common | scale.special.get(row.method, {})
    defaults = {key: parameter.default for key, parameter in method.hyperparameters(row.method).items()}
    return (
        record["corpus"] == scale.corpora[row.corpus].name
        and record["method"] == row.method
        and record["partition"] == row.partition
        and record["hyperparameters"] == defaults | row.hyperparameters
        and all(record["config"]["model"][side] == overrides[f"model.{side}"] for side in INIT_FIELDS)
    )


def _train(row: Row, corpus: Corpus, overrides: Overrides, seed: int, data: Path | None, workdir: Path) -> Command:
    place: Overrides = {}
    if corpus.source.startswith("package:"):
        place = {"data.path": corpus.source}
    elif data is not None:
        place = {"data.path": data / corpus.source}
        if not place["data.path"].is_dir():
            raise InputError(f"--data {data}: the folder {corpus.source} is missing there")
    fields = place | overrides
    fields |= {"method.name": row.method} | {f"method.{key}": value for key, value in row.hyperparameters.items()}
    if row.partition != "fixed":
        fields |= {"data.partition": row.partition}
    fields |= {"train.seed": seed}
    arguments = [f"--config.{key}={value}" for key, value in fields.items()]
    return Command("train", ("--config", corpus.config, "--workdir", str(workdir), *arguments), "", "")


def _measurements(table: str, scale: Scale, limit_train: int, workdir: Path, language_model: Path) -> list[Command]:
    """What a table needs of a run beside its training; Table 2 needs nothing more."""
    run = ("--workdir", str(workdir))
    if table in ("table1", "table3"):
        limit = ("--limit", str(scale.test_sentences)) if scale.test_sentences else ()
        arguments = (*run, "--split", "test", "--iw_samples", str(scale.iw_samples), *limit)
        result = evaluate.output(EvaluationRequest("test", limit=scale.test_sentences))
        return [Command("evaluate", arguments, "evaluation", result)]
    if table == "table4":
        most = min(scale.labels, limit_train or scale.labels)
        sizes = ",".join(str(size) for size in paper.SIZES if size <= most)
        return [_measure("probe", "probe", *run, "--sizes", sizes, "--draws", str(scale.draws))]
    if table == "table5":
        arguments = (*run, "--language_model", str(language_model), *scale.text_quality)
        return [_measure("reproduce.text_quality", "text_quality", *arguments)]
    if table == "table6":
        drawn = (*run, "--steps", "5", "--temperature", "1", "--seed")
        return [
            Command("interpolate", (*drawn, str(seed)), "interpolations", f"interpolations_{seed}.txt", captured=True)
            for seed in (0, 1)
        ]
    if table in ("figure1", "figure2"):
        return [_measure("reproduce.latent_space", "space", *run)]
    return []


def _measure(module: str, section: str, *arguments: str) -> Command:
    return Command(module, arguments, section, OUTPUTS[section][0])


def plan(
    tables: Iterable[str], scale: Scale, seeds: int, methods: Iterable[str], data: Path | None, out: Path
) -> list[Trial]:
    """Every training that the tables need, once; trials that wait for another come last.

    `data` is the folder of the corpora. Without it their paths are left to the configurations. Raises InputError where
    a corpus is missing there, or no row is left.
    """
    trials: dict[str, Trial] = {}

    def add(row: Row, seed: int, table: str, after: Path | None = None) -> Path:
        corpus = scale.corpora[row.corpus]
        hyperparameters = [f"{key}_{value}" for key, value in row.hyperparameters.items()]
        partition = [] if row.partition == "fixed" else [row.partition]
        name = "-".join([corpus.name, row.method, *hyperparameters, *partition, f"seed_{seed}"])
        workdir = out / "runs" / name
        overrides = scale.common | corpus.overrides | scale.special.get(row.method, {})
        commands = [_train(row, corpus, overrides, seed, data, workdir)]
        commands += _measurements(table, scale, overrides.get("data.limit_train", 0), workdir, after or out)
        if name in trials:  # tables share the run
            commands = [*trials[name].commands, *commands]
            after = after or trials[name].after
        trials[name] = Trial(workdir, tuple(dict.fromkeys(commands)), after)
        return workdir

    for table in tables:
        for row in shown(table, scale, methods):
            for seed in range(seeds):
                after = add(paper.LANGUAGE_MODEL, 0, "") if table == "table5" else None
                add(row, seed, table, after)
    if not trials:
        raise InputError("no row is left: --list shows what a table has at this scale")
    return sorted(trials.values(), key=lambda trial: trial.after is not None)
