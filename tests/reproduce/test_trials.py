"""The rows are the paper's, and every command that they need exists with the arguments that it is given."""

import functools
import importlib
from argparse import Namespace
from pathlib import Path

import pytest
from runs_by_hand import make_record

from scalevae_jax import config, config_file
from scalevae_jax.comparison.trial import Command, Trial
from scalevae_jax.config import Config, Network, Optim, Train
from scalevae_jax.core.types import InputError
from scalevae_jax.reproduce.paper import ROWS, SIZES
from scalevae_jax.reproduce.trials import SCALES, matches, plan

ALL = [row for rows in ROWS.values() for row in rows]


def make_plan(scale, tables=ROWS, seeds=1, methods=(), data=None):
    return {trial.name: trial for trial in plan(tables, SCALES[scale], seeds, methods, data, Path("out"))}


@functools.cache
def parser(module: str):
    return importlib.import_module(f"scalevae_jax.{module}").parser()


def parse(command: Command) -> Namespace:
    return parser(command.module).parse_args(list(command.arguments))


def configuration(trial: Trial) -> tuple[Config, Config]:
    """The configuration file of a trial's training, and the configuration that it trains with."""
    options = parse(trial.commands[0])
    settings = config_file.read(config_file.find(options.config))
    return settings, config_file.override(settings, config_file.read_arguments(options))[0]


def test_the_rows_are_those_of_the_paper():
    counts = {"table1": 34, "table2": 6, "table3": 9, "table4": 9, "table5": 2, "table6": 1, "figure1": 6, "figure2": 2}
    assert {name: len(rows) for name, rows in ROWS.items()} == counts
    assert [len(row.reported) for row in ROWS["table1"]] == 2 * [1, *16 * [4]]
    assert {len(row.reported) for row in ROWS["table3"]} == {4}
    assert {len(row.reported) for row in ROWS["table4"]} == {len(SIZES)}
    assert {len(row.reported) for row in ROWS["table5"]} == {6}
    swept = {row.label: row.reported for row in ROWS["table3"]}
    shared = [row for row in ROWS["table1"] if row.corpus == "yahoo" and row.label in swept]
    assert len(shared) == 3
    assert all(row.reported == swept[row.label] for row in shared)


def test_paper_scale_is_section_4_and_changes_only_method_seed_and_data():
    for trial in make_plan("paper").values():
        file, trained = configuration(trial)
        fields = {text.split()[0] for text in config.differences(file, trained)}
        kind = "torch" if trained.method.name == "du_vae" else "paper"
        assert (trained.model.encoder_init, trained.model.decoder_init) == (kind, kind)
        assert {name for name in fields if not name.startswith("method.")} <= {
            "model.encoder_init",
            "model.decoder_init",
            "train.seed",
            "data.path",
            "data.partition",
        }
    for name in ("yahoo", "yelp"):
        settings = config_file.read(config_file.find(name))
        assert settings.model == Network(512, 1024, 32, 0.5, 0.5)
        assert (settings.train.batch_size, settings.train.max_epochs) == (32, 120)
        rule = {"patience": 5, "decay": 0.5, "max_decays": 5, "min_decay_epoch": 0, "reload_best": True}
        assert settings.optim == Optim(learning_rate=1.0, clip=5.0, **rule)
        assert (settings.eval.iw_samples, settings.data.vocab_size) == (500, 20_000)
        method = config.with_defaults(settings).method
        assert (method.des_std, method.f_epo, method.warm_up) == (1.1, {"yahoo": 1, "yelp": 7}[name], 10.0)
    synthetic = config_file.read(config_file.find("synthetic"))
    assert (synthetic.model, synthetic.train) == (Network(50, 50, 2), Train(steps_per_dispatch=25))


@pytest.mark.parametrize("scale", SCALES)
def test_all_methods_of_a_scale_begin_from_the_same_kind_of_initial_values(scale):
    """At scale `paper` DU-VAE alone differs, as footnote 2 of the paper says."""
    trained = [configuration(trial)[1] for trial in make_plan(scale).values()]
    compared = [each.model for each in trained if (scale, each.method.name) != ("paper", "du_vae")]
    kind = "paper" if scale == "paper" else "torch"
    assert {(network.encoder_init, network.decoder_init) for network in compared} == {(kind, kind)}


@pytest.mark.parametrize("scale", SCALES)
def test_every_command_takes_its_arguments(scale):
    """A method also takes its hyperparameters: `validate` builds it."""
    for trial in make_plan(scale).values():
        config.validate(configuration(trial)[1])
        for command in trial.commands[1:]:
            assert str(parse(command).workdir) == str(trial.workdir)


def test_tables_share_runs():
    trials = make_plan("small")
    assert len(trials) < len(ALL)
    shared = trials["yelp_sentiment-bn_vae-gamma_0.6-seed_0"]  # in Table 1 on Yelp, Table 2 and Table 4
    assert [command.module for command in shared.commands] == ["train", "evaluate", "probe"]
    few = trials["yelp_sentiment-agg_vae-seed_0"]  # trained on 2,000 lines, so that it has no more labels
    assert parse(few.commands[2]).sizes == [100, 500, 1000, 2000]
    assert len(make_plan("smoke", tables=("figure1", "figure2"))) == 6


def test_text_quality_waits_for_its_language_model():
    trials = make_plan("small")
    quality = trials["yahoo_sentences-bn_vae-gamma_0.6-seed_0"]
    assert [command.module for command in quality.commands] == ["train", "evaluate", "reproduce.text_quality"]
    language_model = trials["yahoo_sentences-lstm_lm-seed_0"]
    assert quality.after == language_model.workdir
    assert str(language_model.workdir) in quality.commands[2].arguments
    assert list(trials).index(language_model.name) < list(trials).index(quality.name)
    assert "yahoo_sentences-lstm_lm-seed_0" in make_plan("small", tables=("table5",), methods=("bn_vae",))


def test_methods_and_seeds_choose_rows_and_what_is_missing_is_named(tmp_path):
    trials = make_plan("smoke", tables=("table1",), methods=("vae",), seeds=3)
    assert list(trials) == [f"tiny-vae-seed_{seed}" for seed in range(3)]
    with pytest.raises(InputError, match="no row is left"):
        make_plan("smoke", tables=("table6",), methods=("vae",))
    (tmp_path / "yahoo").mkdir()
    with pytest.raises(InputError, match=f"--data {tmp_path}: the folder yelp is missing there"):
        make_plan("paper", data=tmp_path)


def test_a_line_of_a_shell_writes_what_a_command_prints():
    (trial,) = make_plan("smoke", tables=("table6",)).values()
    training, first, second = trial.line.split(" && ")
    assert training.startswith("python -m scalevae_jax.train --config smoke --workdir out/runs/")
    assert first.endswith(f"--seed 0 > {trial.workdir}/interpolations_0.txt")
    assert second.endswith(f"--seed 1 > {trial.workdir}/interpolations_1.txt")


def test_a_run_with_another_hyperparameter_is_not_one_of_the_row():
    row = ROWS["table3"][2]
    run = make_record(row)
    assert matches(run, row, SCALES["smoke"])
    assert not matches(run | {"hyperparameters": run["hyperparameters"] | {"std_ddof": 0}}, row, SCALES["smoke"])
    network = run["config"]["model"] | {"encoder_init": "paper"}
    assert not matches(run | {"config": run["config"] | {"model": network}}, row, SCALES["smoke"])
    assert not matches(run | {"partition": "grouped"}, row, SCALES["smoke"])
    assert not matches(run, row, SCALES["small"])
