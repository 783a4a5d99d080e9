"""Runs: an interrupted one ends as an uninterrupted one does, to the bit; what stops a run."""

import contextlib
import dataclasses
import json
import pathlib
import resource
import shutil
import signal

import jax
import jax.numpy as jnp
import kill_loop
import numpy as np
import pytest
import tiny

from scalevae_jax import config, train
from scalevae_jax.core.types import InputError
from scalevae_jax.data import vocab
from scalevae_jax.inference import load, posteriors
from scalevae_jax.runtime import signals
from scalevae_jax.training import loop, workdir
from scalevae_jax.training import state as training
from scalevae_jax.training.checkpoint import Checkpoints, describe
from scalevae_jax.training.compiling import Compiling
from scalevae_jax.training.log import EpochLog, read_metrics

CLOCK = {"seconds", "seconds_compiling", "tokens_per_second"}
STEPS_PER_EPOCH = 4
SMALL = {
    "agg_vae": {"inner_steps": 3, "window": 2},
    "bn_vae": {},
    "scale_vae": {"f_epo": 1, "factor_average": "median"},
    "vae": {},
}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return kill_loop.write_corpus(tmp_path_factory.mktemp("corpus"), train=100)


def settings_for(corpus, name="scale_vae") -> config.Config:
    return config.Config(
        data=config.Data(path=str(corpus), buckets=1),
        model=config.Network(embedding=5, hidden=6, latent=3),
        method=config.MethodConfig(name=name, **SMALL[name]),
        optim=config.Optim(min_decay_epoch=0, patience=1, learning_rate=4.0),
        train=config.Train(max_epochs=3, batch_size=32),
        eval=config.Eval(batch_size=32, iw_samples=4),
        checkpoint=config.Checkpoint(every_steps=3),
    )


class Interrupt(signals.Signals):
    """SIGINT comes when the loop looks for a signal for the `looks`-th time, counted from 0."""

    def __init__(self, looks: int):
        self._left = looks

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None

    at_once = contextlib.nullcontext

    @property
    def received(self) -> int | None:
        self._left -= 1
        return signal.SIGINT if self._left < 0 else None


class InterruptValidation(Interrupt):
    """A signal comes in the middle of validation."""

    def __init__(self):
        super().__init__(1000)

    @contextlib.contextmanager
    def at_once(self):
        yield
        raise signals.Interrupted


def interrupted(monkeypatch, settings, folder, caught=None) -> str:
    """Train until the signal; what the command says of it."""
    with monkeypatch.context() as patch:
        patch.setattr(train, "Signals", lambda answer: caught)
        with pytest.raises(signals.Stopped) as stopped:
            train.train(settings, folder)
    return str(stopped.value)


def final(folder, settings):
    """The newest state of a run, and its log without the clock."""
    settings = config.with_defaults(settings)
    method = config.build_method(settings)
    words = vocab.load(folder / "vocab.txt")
    model = config.build_model(settings, method, len(words))
    with contextlib.closing(workdir.checkpoints(folder, settings, words)) as checkpoints:
        state = checkpoints.newest(training.abstract_state(settings, model, method, STEPS_PER_EPOCH))
    lines = [{key: value for key, value in line.items() if key not in CLOCK} for line in read_metrics(folder)]
    return state, lines


def same_end(folder, whole, settings):
    (state, lines), (expected_state, expected_lines) = final(folder, settings), final(whole, settings)
    assert lines == expected_lines
    assert [line["epoch"] for line in lines] == [1, 2, 3]
    assert describe(state) == describe(expected_state)


@pytest.fixture(scope="module")
def wholes(corpus, tmp_path_factory):
    """An uninterrupted run of each method, to compare with and to copy."""
    folders = {}

    def whole(name):
        if name not in folders:
            folders[name] = tmp_path_factory.mktemp(name)
            train.train(settings_for(corpus, name), folders[name])
        return folders[name]

    return whole


@pytest.fixture
def copied(wholes, tmp_path):
    """A copy of a finished run of Scale-VAE."""
    return shutil.copytree(wholes("scale_vae"), tmp_path / "run")


@pytest.mark.parametrize("name", ["scale_vae", "agg_vae", "bn_vae"])
def test_an_interrupted_run_ends_as_the_uninterrupted_one(name, corpus, wholes, tmp_path, monkeypatch):
    """Stopped in the middle of the first epoch, in validation, and in the middle of the second or third epoch."""
    settings, folder = settings_for(corpus, name), tmp_path / "run"
    assert "stopped at step 2, and saved" in interrupted(monkeypatch, settings, folder, Interrupt(2))
    assert "stopped at step 4, and saved" in interrupted(monkeypatch, settings, folder, InterruptValidation())
    assert "stopped at step 7, and saved" in interrupted(monkeypatch, settings, folder, Interrupt(3))
    train.train(settings, folder)
    same_end(folder, wholes(name), settings)


MODERN = {
    "cosine": config.Optim(name="adamw", learning_rate=0.03, schedule="cosine", warmup_steps=3),
    "cut": config.Optim(name="adam", learning_rate=0.1, patience=1, warmup_steps=2),
}


@pytest.mark.parametrize("kind", MODERN)
def test_adam_resumes_to_the_bit(kind, corpus, tmp_path, monkeypatch):
    """Where a cosine lowers its rate, and where a cut restarts it from the best parameters; with word dropout."""
    settings = settings_for(corpus, "vae")
    settings.optim, settings.model.word_dropout = MODERN[kind], 0.3
    if kind == "cut":
        losses = iter([5.0, 6.0, 7.0] * 2)  # of both runs
        summary = posteriors.SplitPosteriors.summary
        monkeypatch.setattr(posteriors.SplitPosteriors, "summary", lambda *a: summary(*a) | {"loss": next(losses)})
    train.train(settings, tmp_path / "whole")
    rates = [line["lr"] for line in read_metrics(tmp_path / "whole")]
    expected = [0.03 * 0.5 * (1 + np.cos(np.pi * k / 9)) for k in (0, 4, 8)] if kind == "cosine" else [0.1, 0.1, 0.05]
    np.testing.assert_allclose(rates, expected, rtol=1e-5)
    assert "stopped at step 7" in interrupted(monkeypatch, settings, tmp_path / "stopped", Interrupt(7))
    train.train(settings, tmp_path / "stopped")
    same_end(tmp_path / "stopped", tmp_path / "whole", settings)


def test_scanned_steps_are_the_same_steps(corpus, wholes, tmp_path, monkeypatch):
    """To rounding; stopped and resumed, to the bit."""
    settings = settings_for(corpus)
    settings.optim.learning_rate = 0.5  # at a larger rate, rounding grows
    train.train(settings, tmp_path / "single")
    expected, _ = final(tmp_path / "single", settings)
    settings.train.steps_per_dispatch = 3  # of four an epoch
    train.train(settings, tmp_path / "scanned")
    state, _ = final(tmp_path / "scanned", settings)
    np.testing.assert_allclose(tiny.flat(state.params), tiny.flat(expected.params), rtol=1e-4, atol=1e-5)
    assert "stopped at step 7" in interrupted(monkeypatch, settings, tmp_path / "stopped", Interrupt(3))
    train.train(settings, tmp_path / "stopped")
    same_end(tmp_path / "stopped", tmp_path / "scanned", settings)


def test_a_step_is_compiled_once(corpus, tmp_path, monkeypatch):
    """Ahead in a thread, and not again at the first step, at the start of an epoch, after a cut of the rate, or in a
    second life."""
    settings, make_steps, compiled = settings_for(corpus), loop.make_steps, []
    settings.model.hidden, settings.train.max_epochs = 7, 6  # nothing else has this size

    def counting(*arguments):
        steps = make_steps(*arguments)

        def joint(state, batch):
            compiling.seconds()
            out = steps.joint(state, batch)
            compiled.append(compiling.seconds() > 0)
            return out

        joint.lower = steps.joint.lower
        return steps._replace(joint=joint)

    monkeypatch.setattr(loop, "make_steps", counting)
    with Compiling(1) as compiling:
        interrupted(monkeypatch, settings, tmp_path, Interrupt(6))
        train.train(settings, tmp_path)
    lines = read_metrics(tmp_path)
    assert lines[-1]["lr"] < lines[0]["lr"]
    assert compiled == [False] * lines[-1]["step"]


def test_a_finished_run_is_left_alone_and_another_configuration_is_refused(corpus, copied, capsys):
    settings = settings_for(corpus)
    before = {path: path.stat().st_mtime_ns for path in (copied / "checkpoints").rglob("*")}
    train.train(settings, copied)
    assert "already finished: 3 epochs, 12 steps; nothing is left to train" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in (copied / "checkpoints").rglob("*")} == before
    settings.model.hidden = 7
    with pytest.raises(InputError, match=r"model\.hidden was 6 and is 7"):
        train.train(settings, copied)


def test_a_run_begins_with_the_encoder_of_another_and_with_a_decoder_of_its_own(corpus, wholes, tmp_path, monkeypatch):
    other, begun = wholes("vae"), []
    monkeypatch.setattr(train, "fit", lambda run, state, *others: begun.append(state))
    settings = settings_for(corpus, "bn_vae")
    train.train(settings, tmp_path / "alone")
    settings.train.encoder_from = str(other)
    train.train(settings, tmp_path / "run")
    alone, state = begun
    assert describe(state.params["encoder"]) == describe(load.load(other).params["encoder"])
    assert describe(state._replace(params=state.params | {"encoder": alone.params["encoder"]})) == describe(alone)
    settings.model.hidden = 7
    with pytest.raises(InputError, match=r"config\.train\.encoder_from: .*: its network has other sizes"):
        train.train(settings, tmp_path / "wider")
    settings.data.vocab_size = 10
    with pytest.raises(InputError, match=r"config\.train\.encoder_from: .*: its vocabulary is different"):
        train.train(settings, tmp_path / "fewer words")
    settings.train.encoder_from = str(tmp_path / "nowhere")
    with pytest.raises(InputError, match="not the folder of a run"):
        train.train(settings, tmp_path / "from nowhere")


def test_a_run_goes_on_where_its_text_and_its_cache_have_moved_to(corpus, copied, tmp_path, capsys):
    settings, moved = settings_for(corpus), shutil.copytree(corpus, tmp_path / "moved")
    settings.data.path, settings.data.cache = str(moved), str(tmp_path / "cache")
    train.train(settings, copied)
    assert "already finished" in capsys.readouterr().out
    assert json.loads((copied / workdir.CONFIG).read_text())["data"]["path"] == str(moved)
    with (moved / "train.txt").open("a") as file:
        file.write("a dog\n")
    with pytest.raises(InputError, match="trained on another train file"):
        train.train(settings, copied)


def test_the_command_that_comes_next_can_be_copied_where_the_workdir_has_a_blank(wholes, corpus, tmp_path, capsys):
    folder = shutil.copytree(wholes("scale_vae"), tmp_path / "p b")
    train.finish(settings_for(corpus), folder)
    assert f"--workdir '{folder}'\n" in capsys.readouterr().out


def test_neg_elbo_can_choose_the_best_epoch_and_be_what_patience_counts(corpus, tmp_path, monkeypatch):
    """The loss falls while neg_elbo rises, as when a factor runs away."""
    measures = iter([(9.0, 1.0), (8.0, 2.0), (7.0, 3.0)])
    summary = posteriors.SplitPosteriors.summary
    monkeypatch.setattr(
        posteriors.SplitPosteriors,
        "summary",
        lambda *a: summary(*a) | dict(zip(("loss", "neg_elbo"), next(measures), strict=True)),
    )
    settings = settings_for(corpus)
    settings.train.select_by = "neg_elbo"
    train.train(settings, tmp_path)
    assert load.load(tmp_path).epoch == 1
    lines = read_metrics(tmp_path)
    assert [(line["lr"], line["valid_loss"]) for line in lines] == [(4.0, 9.0), (4.0, 8.0), (2.0, 7.0)]
    assert config.from_json(tmp_path / workdir.CONFIG).train.select_by == "neg_elbo"


def test_early_stop_counts_the_epochs_since_the_best_one(corpus, tmp_path, monkeypatch, capsys):
    """Across a resumption, and where a cut has counted anew."""
    losses = iter([5.0, 4.0, 6.0, 5.0, 4.0])
    summary = posteriors.SplitPosteriors.summary
    monkeypatch.setattr(posteriors.SplitPosteriors, "summary", lambda *a: summary(*a) | {"loss": next(losses)})
    settings = settings_for(corpus, "vae")
    settings.optim.early_stop, settings.train.max_epochs = 3, 9
    interrupted(monkeypatch, settings, tmp_path, Interrupt(13))
    train.train(settings, tmp_path)
    assert [line["valid_loss"] for line in read_metrics(tmp_path)] == [5, 4, 6, 5, 4]
    assert "no better validation loss in 3 epochs: training ends\n" in capsys.readouterr().out
    train.train(settings, tmp_path)
    assert "already finished: 5 epochs" in capsys.readouterr().out


@pytest.mark.parametrize("per_dispatch", [1, 3])
def test_curves_have_a_point_every_few_steps_and_a_compilation_is_announced(
    per_dispatch, corpus, tmp_path, monkeypatch, capsys
):
    points, texts = {}, {}
    monkeypatch.setattr(loop, "CURVE_EVERY", 3)
    monkeypatch.setattr(loop, "TEXTS_EVERY", 2)
    monkeypatch.setattr(EpochLog, "step", lambda log, step, values: points.update({step: values}))
    monkeypatch.setattr(EpochLog, "text", lambda log, name, lines, step: texts.update({(name, step): lines}))
    settings = settings_for(corpus, "vae")
    settings.optim.patience, settings.train.steps_per_dispatch = 5, per_dispatch
    train.train(settings, tmp_path)
    assert list(points) == [3, 6, 9, 12]
    for step, values in points.items():
        assert list(values) == ["loss", "gradient_norm", "kl_weight", "lr"]
        assert values["kl_weight"] == pytest.approx(step / STEPS_PER_EPOCH / 10)  # annealed over ten epochs
        assert values["lr"] == 4.0
        assert min(values["loss"], values["gradient_norm"]) > 0
    assert list(texts) == [("configuration", 0), ("samples", 8), ("interpolation", 8)]
    assert len(texts["samples", 8]) == 5
    valid = (corpus / "valid.txt").read_text().splitlines()
    between = texts["interpolation", 8]
    assert (between[0], len(between), between[-1]) == (f"from: {valid[0]}", 7, f"to: {valid[-1]}")
    announced = [line.strip() for line in capsys.readouterr().out.splitlines() if "compiling " in line[:12]]
    if per_dispatch > 1:  # a single step is compiled ahead, here by another test (test_compiling.py)
        tokens = announced[0].rpartition(" of ")[2]
        assert announced == [f"compiling 1 of 2: 3 steps of {tokens}", f"compiling 2 of 2: a step of {tokens}"]


def test_the_best_epoch_is_loaded_and_is_gone_back_to_when_the_rate_is_cut(corpus, tmp_path):
    """At this rate the loss of the second epoch is higher than that of the first, and patience is one epoch."""
    settings = settings_for(corpus)
    settings.optim.learning_rate, settings.train.max_epochs = 16.0, 2
    train.train(settings, tmp_path)
    state, lines = final(tmp_path, settings)
    assert lines[1]["valid_loss"] > lines[0]["valid_loss"]
    run = load.load(tmp_path)
    assert (run.epoch, float(state.plateau.learning_rate)) == (1, 8.0)
    assert describe((state.params, state.method_state)) == describe((run.params, run.method_state))


def test_a_state_saved_between_steps_is_the_state_of_that_step(corpus, tmp_path, monkeypatch):
    """orbax writes in the background while the next steps reuse the memory of the state's arrays."""
    params, save = {}, Checkpoints.save

    def spy(self, state, valid_loss=None):
        params[int(state.step)] = tiny.flat(jax.tree.map(np.array, state.params))
        save(self, state, valid_loss)

    monkeypatch.setattr(Checkpoints, "save", spy)
    settings = settings_for(corpus)
    settings.train.max_steps = 4
    train.train(settings, tmp_path)
    shutil.rmtree(tmp_path / "checkpoints/4")
    state, _ = final(tmp_path, settings)
    assert int(state.step) == 3
    np.testing.assert_array_equal(tiny.flat(state.params), params[3])


@pytest.mark.parametrize(
    ("name", "where", "per_dispatch"),
    [("scale_vae", "step 2", 1), ("agg_vae", "step 1", 1), ("scale_vae", "step 2", 3)],
)
def test_a_step_that_is_not_finite_stops_the_run_with_one_line(name, where, per_dispatch, corpus, tmp_path):
    settings = settings_for(corpus, name)
    settings.train.steps_per_dispatch = per_dispatch
    settings.optim.learning_rate, settings.optim.clip = 1e30, 1e30
    line = rf"{where} of epoch 1 is not finite: loss \S+, gradient norm nan, lr 1e\+30, KL weight 0\.\d+\. The last .*$"
    with pytest.raises(InputError, match=line):
        train.train(settings, tmp_path)
    assert not workdir.has_checkpoint(tmp_path)


def test_a_run_goes_on_from_its_last_checkpoint_and_skips_what_is_not_finite(corpus, tmp_path, monkeypatch):
    """Step 6, the second of the second epoch, gives NaN."""
    settings, make_steps = settings_for(corpus, "vae"), loop.make_steps

    def spoiled(model, method, *rest):
        weight = method.kl_weight
        bad = dataclasses.replace(
            method, kl_weight=lambda t: jnp.where(jnp.abs(t * STEPS_PER_EPOCH - 6) < 0.5, jnp.nan, weight(t))
        )
        return make_steps(model, bad, *rest)

    monkeypatch.setattr(loop, "make_steps", spoiled)
    for _ in range(2):  # the same command says the same
        with pytest.raises(InputError, match="step 6 of epoch 2 is not finite: loss nan"):
            train.train(settings, tmp_path)
        assert int(final(tmp_path, settings)[0].step) == 4
    settings.train.skip_nonfinite = True
    train.train(settings, tmp_path)
    state, lines = final(tmp_path, settings)
    assert [line["skipped"] for line in lines] == [0, 1, 1]
    assert int(state.step) == 12
    assert all(np.isfinite(tiny.flat(state.params)))


def test_a_validation_loss_that_is_not_finite_ends_the_run_with_the_state_saved(corpus, tmp_path, monkeypatch):
    settings = settings_for(corpus)
    summary = posteriors.SplitPosteriors.summary
    monkeypatch.setattr(posteriors.SplitPosteriors, "summary", lambda *a: summary(*a) | {"loss": float("nan")})
    with pytest.raises(InputError, match=r"the validation loss is nan after epoch 1 \(step 4, lr 4\), which is saved"):
        train.train(settings, tmp_path)
    state, lines = final(tmp_path, settings)
    assert (int(state.step), int(state.epoch), lines) == (4, 1, [])


def test_a_damaged_checkpoint_does_not_lose_the_run(corpus, wholes, copied, capsys):
    settings = settings_for(corpus)
    shutil.rmtree(copied / "checkpoints/12/state")
    train.train(settings, copied)
    assert "the checkpoint of step 12 is damaged" in capsys.readouterr().out
    same_end(copied, wholes("scale_vae"), settings)


def test_a_run_that_saved_nothing_does_not_hold_its_folder(corpus, tmp_path, monkeypatch):
    settings = settings_for(corpus)
    with monkeypatch.context() as patch:
        patch.setattr(train, "fit", lambda *_: (_ for _ in ()).throw(MemoryError))
        with pytest.raises(MemoryError):
            train.train(settings, tmp_path)
    settings.train.seed, settings.train.max_steps = 5, 1
    train.train(settings, tmp_path)
    assert json.loads((tmp_path / workdir.CONFIG).read_text())["train"]["seed"] == 5


def test_a_checkpoint_that_cannot_be_written_ends_the_run_and_harms_no_other(corpus, wholes, tmp_path, capfd):
    """Files larger than a kilobyte cannot be written, as on a full disk; then they can."""
    settings = settings_for(corpus)
    settings.train.max_epochs = 1
    train.train(settings, tmp_path)
    settings.train.max_epochs = 3
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limit[1]))
    try:
        with pytest.raises(InputError, match=r"^[^\n]*(could not be written|File too large)[^\n]*$"):
            train.train(settings, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert capfd.readouterr().err == ""
    assert int(final(tmp_path, settings)[0].step) == 4
    train.train(settings, tmp_path)
    same_end(tmp_path, wholes("scale_vae"), settings)


def test_a_folder_that_cannot_be_made_and_one_that_vanishes_are_one_line(corpus, tmp_path, monkeypatch):
    with pytest.raises(InputError, match="Make the folder writable"):
        train.train(settings_for(corpus), pathlib.Path("/proc/run"))
    write = EpochLog.write

    def vanish(log, *rest):
        (tmp_path / "run").rename(tmp_path / "gone")
        write(log, *rest)

    monkeypatch.setattr(EpochLog, "write", vanish)
    with pytest.raises(InputError, match=r"^[^\n]*(No such file or directory|could not be written)[^\n]*$"):
        train.train(settings_for(corpus), tmp_path / "run")


def test_float64_is_refused_in_one_line(corpus, tmp_path):
    with jax.enable_x64(True), pytest.raises(InputError, match=r"^JAX_ENABLE_X64 is set[^\n]*$"):
        train.train(settings_for(corpus), tmp_path)


def test_a_second_process_is_refused(corpus, tmp_path):
    with workdir.Lock(tmp_path), pytest.raises(InputError, match="is training here"):
        train.train(settings_for(corpus), tmp_path)


@pytest.mark.parametrize(
    ("backend", "devices", "seconds", "most"),
    [("gpu", 1, 3.0, 8), ("gpu", 4, 3.0, 8), ("cpu", 1, 0.01, 8), ("cpu", 1, 0.2, 0), ("cpu", 4, 0.01, 0)],
)
def test_on_a_cpu_a_long_dispatch_is_waited_for(backend, devices, seconds, most, monkeypatch):
    """And its memory is freed before the next one; with several virtual devices every dispatch is."""
    slept = []
    monkeypatch.setattr(loop.jax, "default_backend", lambda: backend)
    monkeypatch.setattr(loop.jax, "device_count", lambda: devices)
    monkeypatch.setattr(loop.time, "sleep", slept.append)
    assert loop.dispatches_ahead(seconds) == most
    assert slept == ([loop.FREED] if (backend, devices, most) == ("cpu", 1, 0) else [])


@pytest.mark.slow
def test_a_run_killed_at_random_moments_reaches_the_same_end(tmp_path):
    """Six of the forty kills of `python tests/kill_loop.py`."""
    tally = kill_loop.loop(6, 1, tmp_path)
    assert (tally["kills"], tally["mismatches"], tally["failed_lives"]) == (6, 0, 0), tally
