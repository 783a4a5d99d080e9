"""Reading a trained model: from a run, from an export, what two loads share, and what is refused."""

import json
import logging
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import chex
import jax
import numpy as np
import pytest
from small import STEPS_PER_EPOCH, make_run

import scalevae_jax
from scalevae_jax import export
from scalevae_jax.core.types import InputError
from scalevae_jax.inference import flags, load, posteriors
from scalevae_jax.methods.method import METHODS
from scalevae_jax.training import state as training
from scalevae_jax.training import workdir

BEST, NEWEST = 6, 9  # steps


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The best checkpoint of a run holds the parameters of this model, a newer one holds their negatives."""
    run = make_run(tmp_path_factory.mktemp("run"))
    state = training.create_state(run.settings, run.model, run.method, STEPS_PER_EPOCH)
    best = state._replace(params=run.params, method_state=run.method_state, step=np.int32(BEST), epoch=np.int32(3))
    newest = best._replace(params=jax.tree.map(np.negative, run.params), step=np.int32(NEWEST), epoch=np.int32(4))
    checkpoints = workdir.checkpoints(run.workdir, run.settings, run.words, writing=True)
    for saved, loss in ((best, 1.0), (newest, 2.0)):
        checkpoints.save(jax.tree.map(jax.numpy.asarray, saved), loss)
    checkpoints.close()
    return run


def _same(one, other):
    chex.assert_trees_all_equal((one.params, one.method_state), (other.params, other.method_state))


def test_a_run_is_read_at_its_best_epoch(trained):
    back = load.load(trained.workdir)
    _same(back, trained)
    assert (back.settings, back.words, back.epoch) == (trained.settings, trained.words, trained.epoch)
    assert back.digest == trained.digest


def test_two_loads_of_a_model_share_what_is_compiled(trained, caplog):
    first = load.load(trained.workdir)
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        second = load.load(trained.workdir)
    assert not [record for record in caplog.records if "ompil" in record.getMessage()]
    assert first.model == second.model
    assert first.method is second.method
    steps = [posteriors.make_inference(run.model, run.method) for run in (first, second)]
    assert steps[0] is steps[1]


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"not the folder of a run \(no config\.json\)"):
        scalevae_jax.load(tmp_path)
    make_run(tmp_path / "run")
    with pytest.raises(InputError, match="no epoch has ended yet; train first"):
        scalevae_jax.load(tmp_path / "run")


def test_a_method_of_ones_own_needs_its_script_first(tmp_path):
    run = make_run(tmp_path)
    tree = json.loads((run.workdir / "config.json").read_text())
    tree["method"] = {"name": "my_method", "my_weight": 2.0}
    (run.workdir / "config.json").write_text(json.dumps(tree))
    with pytest.raises(InputError, match=r"'my_method', a method that is not in the package;.* import the script") as e:
        load.load(run.workdir)
    assert "\n" not in str(e.value)


IN_THE_SCRIPT = "scalevae_jax.load('a b'), in the script that defines mine"


@pytest.mark.parametrize(
    ("method", "typed", "argv", "step"),
    [
        ("vae", "-m scalevae_jax.train -h", "/train.py -h", "python -m scalevae_jax.sample --num 9 --workdir 'a b'"),
        ("mine", "-m scalevae_jax.train -h", "/train.py -h", IN_THE_SCRIPT),
        ("mine", "-c pass", "-c", IN_THE_SCRIPT),
        ("mine", "o.py --epochs 3", "o.py --epochs 3", IN_THE_SCRIPT),
        ("mine", "-u o.py train --seed 1", "o.py --seed 1", "python o.py sample --num 9 --workdir 'a b'"),
        ("mine", "o.py export", "o.py", "python o.py sample --num 9 --workdir 'a b'"),
    ],
)
def test_the_next_step_is_one_that_knows_the_method(method, typed, argv, step, monkeypatch):
    """A script as docs/methods.md shows it takes the command's name out of sys.argv."""
    monkeypatch.setitem(METHODS, "mine", lambda: METHODS["vae"]())
    monkeypatch.setattr(sys, "orig_argv", ["python", *typed.split()])
    monkeypatch.setattr(sys, "argv", argv.split())
    assert flags.next_step("sample", "--num 9", method, Path("a b")) == f"next: {step}"


def test_loading_in_threads_leaves_logging_and_hooks_as_they_were(trained):
    def state():
        absl = logging.getLogger("absl")
        return logging.root.manager.disable, absl.level, list(absl.filters), sys.unraisablehook

    before = state()
    with ThreadPoolExecutor(4) as threads:
        models = list(threads.map(scalevae_jax.load, [trained.workdir] * 8))
    assert state() == before
    for model in models:
        _same(model.run, trained)


@pytest.mark.parametrize("name", METHODS)
def test_an_export_of_every_method_holds_all_its_arrays(tmp_path, name):
    run = make_run(tmp_path / "run", name)
    (run.workdir / "data" / "train.txt").unlink()  # without it no prior is fitted, and nothing is compiled
    export.save(run, tmp_path / "out")
    back = load.load(tmp_path / "out")
    _same(back, run)
    assert (back.settings, back.words, back.epoch) == (run.settings, run.words, run.epoch)


@pytest.fixture
def exported(tmp_path):
    run = make_run(tmp_path / "run")
    (run.workdir / "data" / "train.txt").unlink()
    export.save(run, tmp_path / "out")
    return tmp_path / "out"


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "vocab.txt"])
def test_a_changed_file_of_an_export_is_named(exported, name):
    path = exported / name
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(InputError, match=f"{name}: changed since the export"):
        load.load(exported)


def test_an_export_without_one_of_its_files_is_refused(exported):
    (exported / "vocab.txt").unlink()
    with pytest.raises(InputError, match="not a complete exported model"):
        load.load(exported)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (load.FORMAT.encode(), b"scalevae_jax 9", "format 'scalevae_jax 9', expected 'scalevae_jax 1'"),
        (b"decoder.embedding", b"decoder.Embedding", "not weights of this version"),
    ],
)
def test_weights_of_another_version_are_refused(exported, old, new, message):
    weights, sums = exported / load.WEIGHTS, exported / load.SUMS
    previous = load.file_digest(weights)
    weights.write_bytes(weights.read_bytes().replace(old, new))
    sums.write_text(sums.read_text().replace(previous, load.file_digest(weights)))
    with pytest.raises(InputError, match=message):
        load.load(exported)


def test_the_products_of_a_loaded_model_can_be_made_in_bfloat16(trained):
    half = trained.computing_in("bfloat16")
    assert half.model.decoder.compute_dtype == half.settings.model.compute_dtype == "bfloat16"
    assert trained.model.decoder.compute_dtype == "float32"
    with pytest.raises(InputError, match=r"config\.model\.compute_dtype"):
        trained.computing_in("float8")
