"""Configurations: the files, the JSON round trip, what is refused."""

import dataclasses
import json
import math
import re
import runpy
from pathlib import Path

import pytest

from scalevae_jax import config
from scalevae_jax.core.types import InputError
from scalevae_jax.methods.method import MEANINGS, METHODS, hyperparameters

FILES = sorted((Path(__file__).parents[2] / "configs").glob("*.py"))


def load(path: Path) -> config.Config:
    return runpy.run_path(str(path))["get_config"]()


def test_the_promised_files_are_there():
    names = {path.stem for path in FILES}
    assert {"demo", "smoke", "text", "synthetic", "yahoo", "yelp", "yelp_sentiment", "yahoo_sentences"} <= names


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_file_is_valid_and_survives_json(path, tmp_path):
    settings = load(path)
    config.validate(settings)
    (tmp_path / "config.json").write_text(config.to_json(settings))
    assert config.from_json(tmp_path / "config.json") == settings
    assert "COMMAND" in runpy.run_path(str(path))["__doc__"]


@pytest.mark.parametrize("name", ["yahoo", "yelp"])
def test_the_paper_configurations_are_section_4_1(name):
    settings = load(next(path for path in FILES if path.stem == name))
    network, optim, train = settings.model, settings.optim, settings.train
    assert (network.embedding, network.hidden, network.latent) == (512, 1024, 32)
    assert (network.dropout_words, network.dropout_outputs) == (0.5, 0.5)
    assert (optim.learning_rate, optim.clip, optim.patience, optim.max_decays) == (1.0, 5.0, 5, 5)
    assert (train.batch_size, train.max_epochs, settings.data.vocab_size) == (32, 120, 20_000)
    method = config.with_defaults(settings).method
    assert (method.des_std, method.f_epo, method.warm_up) == (1.1, {"yahoo": 1, "yelp": 7}[name], 10.0)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_name_is_found_from_any_folder(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert config.find(path.stem) == path


def test_a_path_is_taken_as_it_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("mine.py", "mine", "./demo"):
        Path(name).write_text("")
        assert config.find(name) == Path(name)


@pytest.mark.parametrize("name", ["smok", "smoke.py", "configs/none.py", ".", ""])
def test_what_is_neither_is_refused_with_the_names(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    known = ", ".join(path.stem for path in FILES)
    with pytest.raises(InputError, match=f"^--config {re.escape(name)}: no such file; by name there are {known}$"):
        config.find(name)


def test_defaults_are_written_out_for_every_method():
    for name, constructor in METHODS.items():
        settings = config.with_defaults(config.Config(method=config.MethodConfig(name=name)))
        assert dataclasses.asdict(settings.method)["name"] == name
        constructor(**config.hyperparameters(settings))


def test_help_says_what_every_hyperparameter_means():
    assert set(MEANINGS) == {key for name in METHODS for key in hyperparameters(name)}
    assert (
        "--config.method.threshold: nats a dimension under which a KL has no gradient (of free_bits)"
        in config.describe()
    )
    assert "--config.method.kl_start=0.0: KL weight at the first step" in config.describe_methods()


def test_another_method_drops_the_hyperparameters_of_the_file_and_keeps_those_of_the_command_line():
    from_file = config.Config(method=config.MethodConfig(name="scale_vae", des_std=0.7, warm_up=3.0))
    now = dataclasses.replace(from_file, method=config.MethodConfig(name="vae", des_std=0.7, warm_up=5.0))
    settings, dropped = config.override_method(now, from_file, {"method.name", "method.warm_up"})
    assert dropped == ["des_std"]
    assert config.hyperparameters(settings) == {"warm_up": 5.0}
    assert config.override_method(from_file, from_file, {"method.des_std"}) == (from_file, [])


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("train.batch_size", 0, "config.train.batch_size: must be more than 0"),
        ("train.seed", -1, "config.train.seed: must be 0 or more"),
        ("model.dropout_words", 1.0, "config.model.dropout_words: must be in"),
        ("optim.decay", 1.0, "config.optim.decay: must be in"),
        ("data.partition", "sorted", "config.data.partition: one of fixed, repartitioned"),
        ("method.name", "gan", "config.method.name: no method 'gan'"),
        ("method.gamma", 0.6, "config.method.gamma: scale_vae has no such hyperparameter"),
        ("method.des_std", -1.0, "des_std > 0"),
        ("method.des_std", math.nan, "config.method.des_std: a finite number"),
        ("train.batch_size", 15, "config.train.batch_size: 15; scale_vae takes the moments of batches of 16"),
        ("method", config.MethodConfig(name="agg_vae", window=0), "window of 1 or more"),
        ("method", config.MethodConfig(name="sa_vae", svi_steps=-1), "can not take -1 steps"),
        ("method", config.MethodConfig(name="du_vae", alpha=0.0), "alpha > 0"),
        ("method.factor_average", "mode", "factor_average is one of"),
        ("method", config.MethodConfig(name="bn_vae", encoder_init="zeros"), "encoder_init is one of paper, torch"),
    ],
)
def test_a_value_that_can_not_be_is_named(path, value, message):
    settings = config.Config()
    *section, name = path.split(".")
    setattr(getattr(settings, section[0]) if section else settings, name, value)
    with pytest.raises(InputError, match=message.replace("(", r"\(")):
        config.validate(settings)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": {"hiden": 3}}, "model.hiden: no such field"),
        ({"modle": {}}, "modle: no such section"),
        ({"model": {"hidden": "3"}}, "model.hidden: '3' is not of type int"),
        ({"model": 3}, "model: a JSON object is wanted"),
        ({"train": {"seed": True}}, "train.seed: True is not of type int"),
    ],
)
def test_a_broken_config_json_names_file_and_field(change, message, tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(change))
    with pytest.raises(InputError, match=message) as error:
        config.from_json(path)
    assert str(path) in str(error.value)


def test_help_lists_every_field_and_every_method():
    text = config.describe()
    for section, kind in config.SECTIONS.items():
        for field in dataclasses.fields(kind):
            assert f"--config.{section}.{field.name}" in text
            assert field.metadata["help"]
    for name in METHODS:
        assert f"{name}: " in config.describe_methods()
