"""Configurations: the files, what the command line changes, the JSON round trip, what is refused."""

import dataclasses
import json
import math
import re
import runpy
import sys
from pathlib import Path

import pytest

from scalevae_jax import config, config_file, train
from scalevae_jax.core.types import InputError
from scalevae_jax.methods.method import MEANINGS, METHODS, hyperparameters

FILES = sorted((Path(__file__).parents[2] / "configs").glob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_file_is_found_by_its_name_is_valid_and_survives_json(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert config_file.find(path.stem) == path
    settings = config_file.read(path)
    config.validate(settings)
    Path("config.json").write_text(config.to_json(settings))
    assert config.from_json(Path("config.json")) == settings
    assert "COMMAND" in runpy.run_path(str(path))["__doc__"]


def test_a_path_is_taken_as_it_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("mine.py", "mine", "./demo"):
        Path(name).write_text("")
        assert config_file.find(name) == Path(name)


@pytest.mark.parametrize("name", ["smok", "smoke.py", "configs/none.py", "."])
def test_an_unknown_name_is_refused_with_the_known_ones(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    known = ", ".join(path.stem for path in FILES)
    with pytest.raises(InputError, match=f"^--config {re.escape(name)}: no such file; by name there are {known}$"):
        config_file.find(name)


HEAD = "from scalevae_jax.config import Config, Eval, MethodConfig, Train\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", ": defines no get_config()"),
        ("get_config = dict", ": get_config() returns dict; expected scalevae_jax.config.Config"),
        ("made = Config()\nmade.data = None\nget_config = lambda: made", ": config.data: expected Data, got None"),
        ("def get_config(:\n    pass", ", line 2: SyntaxError: invalid syntax"),
        ("import at_fault", ", line 2: SyntaxError: invalid syntax"),
        ("import no_such_module", ", line 2: ModuleNotFoundError: No module named 'no_such_module'"),
        ("def get_config():\n    return Config(\n        modle=1)", ", line 3: TypeError: "),
        ("made = Config()\nmade.train.epochs = 2\nget_config = lambda: made", ": train.epochs: no such field"),
        ("get_config = lambda: Config(eval=Eval(paper='yelp'))", ", line 2: TypeError: "),
        ("def get_config():\n    return Train().maxepochs", ", line 3: AttributeError: "),
        ("def get_config():\n    raise KeyError", ", line 3: KeyError: KeyError"),
    ],
)
def test_a_file_at_fault_is_named_with_its_line(text, message, tmp_path):
    (tmp_path / "at_fault.py").write_text("\n" * 6 + "def f(:\n")
    path = tmp_path / "mine.py"
    path.write_text(f"{HEAD}{text}\n")
    with pytest.raises(InputError) as error:
        config_file.read(path)
    assert str(error.value).startswith(f"{path}{message}")


def test_a_module_beside_the_file_is_found(tmp_path):
    (tmp_path / "seed_of_mine.py").write_text("SEED = 7\n")
    (tmp_path / "mine.py").write_text(
        f"{HEAD}from seed_of_mine import SEED\ndef get_config():\n    return Config(train=Train(seed=SEED))\n"
    )
    path = list(sys.path)
    assert config_file.read(tmp_path / "mine.py").train.seed == 7
    assert sys.path == path


def test_a_file_is_executed_once(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(f"{HEAD}open({str(tmp_path / 'log')!r}, 'a').write('x')\nget_config = Config\n")
    assert train.main(["--config", str(path), "--config.data.path=nowhere", "--dry_run"]) == 2
    assert (tmp_path / "log").read_text() == "x"


def test_the_command_line_changes_fields_of_every_type():
    line = "--config=smoke --config.train.seed=3 --config.optim.learning_rate 0.5 --config.data.raw"
    line += " --config.optim.reload_best=false --config.method.warm_up=2 --config.model.compute_dtype=bfloat16"
    changes = config_file.read_arguments(train.parser().parse(line.split()))
    settings, dropped = config_file.override(config.Config(), changes)
    assert dropped == []
    expected = config.Config()
    expected.train.seed, expected.optim.learning_rate, expected.data.raw = 3, 0.5, True
    expected.optim.reload_best, expected.method.warm_up = False, 2.0
    expected.model.compute_dtype = "bfloat16"
    assert settings == expected


def test_another_method_drops_the_hyperparameters_of_the_file_and_keeps_those_of_the_command_line():
    from_file = config.Config(method=config.MethodConfig(name="scale_vae", des_std=0.7, warm_up=3.0))
    settings, dropped = config_file.override(from_file, {"method.name": "vae", "method.warm_up": 5.0})
    assert dropped == ["des_std"]
    assert config.hyperparameters(settings) == {"warm_up": 5.0}
    assert config_file.override(from_file, {"method.name": "scale_vae"}) == (from_file, [])
    assert config.hyperparameters(from_file) == {"des_std": 0.7, "warm_up": 3.0}


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("train.batch_size", 0, "config.train.batch_size: must be more than 0"),
        ("train.seed", -1, "config.train.seed: must be 0 or more"),
        ("train.seed", 2**40, "config.train.seed: must be under 2,147,483,648"),
        ("train.max_epochs", "3", "config.train.max_epochs: '3' is not of type int"),
        ("train.batch_size", 2.5, "config.train.batch_size: 2.5 is not of type int"),
        ("model.dropout_words", 1.0, "config.model.dropout_words: must be in"),
        ("optim.decay", 1.0, "config.optim.decay: must be in"),
        ("optim.name", "rmsprop", "config.optim.name: expected one of sgd, adam, adamw"),
        ("optim", config.Optim(name="adam"), "config.optim.learning_rate: 1.0; a step of adam moves every parameter"),
        ("data.partition", "sorted", "config.data.partition: expected one of fixed, repartitioned"),
        ("method.name", "gan", "config.method.name: no method 'gan'"),
        ("method.gamma", 0.6, "config.method.gamma: scale_vae has no such hyperparameter"),
        ("method.des_std", -1.0, "des_std is a standard deviation above 0, got -1.0"),
        ("method.des_std", math.nan, "config.method.des_std: expected a finite number"),
        ("train.batch_size", 15, "config.train.batch_size: 15; scale_vae takes the moments of batches of 16"),
        ("method", config.MethodConfig(name="agg_vae", window=0), "window of 1 or more"),
        ("data.split", "90/10", "config.data.split: must be three whole numbers above 0, as 90/5/5, got 90/10"),
        ("data.tokenizer", "bytes", "config.data.tokenizer: expected one of words, bpe, characters"),
        ("model.encoder_init", "zeros", "config.model.encoder_init: expected one of paper, torch"),
    ],
)
def test_a_wrong_value_is_named(path, value, message):
    settings = config.Config()
    *section, name = path.split(".")
    setattr(getattr(settings, section[0]) if section else settings, name, value)
    with pytest.raises(InputError, match=message.replace("(", r"\(")):
        config.validate(settings)


@pytest.mark.parametrize(
    ("schedule", "refused"),
    [("plateau", []), ("cosine", ["train.max_epochs was 120 and is 9 (the cosine schedule depends on it)"])],
)
def test_a_run_may_become_longer_unless_its_rate_follows_a_cosine(schedule, refused):
    now = config.Config(optim=config.Optim(schedule=schedule), train=config.Train(max_epochs=9))
    assert config.differences(config.Config(optim=now.optim), now) == refused


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": {"hiden": 3}}, "model.hiden: no such field"),
        ({"modle": {"hidden": 3}}, "modle.hidden: no such field"),
        ({"model": {"hidden": "3"}}, "model.hidden: '3' is not of type int"),
        ({"model": 3}, "model: expected a JSON object"),
        ({"train": {"seed": True}}, "train.seed: True is not of type int"),
    ],
)
def test_a_broken_config_json_names_file_and_field(change, message, tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(change))
    with pytest.raises(InputError, match=message) as error:
        config.from_json(path)
    assert str(path) in str(error.value)


def test_help_lists_every_field_and_what_every_hyperparameter_means():
    text = " ".join(train.parser().format_help().split())
    for field in config.FIELDS:
        assert f"--config.{field} " in text
    for kind in config.SECTIONS.values():
        assert all(field.metadata["help"] for field in dataclasses.fields(kind))
    assert set(MEANINGS) == {key for name in METHODS for key in hyperparameters(name)}
    assert "--config.method.threshold X nats a dimension below which a KL has no gradient (for free_bits)" in text


def test_list_methods_gives_every_method_with_its_defaults(capsys):
    assert train.main(["--list_methods"]) == 0
    out = capsys.readouterr().out
    for name in METHODS:
        assert f"\n{name}: " in f"\n{out}"
    assert "--config.method.kl_start=0.0: KL weight at the first step" in out
