"""Runs: a stopped one ends as an uninterrupted one does, bitwise; warnings; what is refused."""

import contextlib
import dataclasses
import functools
import json
import pathlib
import resource
import shutil
import signal

import jax
import jax.numpy as jnp
import kill_loop
import numpy as np
import optax
import pytest
import tiny

from scalevae_jax import config, train
from scalevae_jax.core.types import InputError
from scalevae_jax.inference import load, posteriors
from scalevae_jax.methods import objective
from scalevae_jax.methods.method import METHODS
from scalevae_jax.runtime import command, signals
from scalevae_jax.training import checkpoint, fault, lock, loop, profiler, replay, steps, workdir
from scalevae_jax.training.compiling import Compiling
from scalevae_jax.training.log import EpochLog

CLOCK = {"seconds", "seconds_compiling", "tokens_per_second"}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """100, 30 and 30 sentences of a tiny grammar."""
    folder, rng = tmp_path_factory.mktemp("corpus"), np.random.default_rng(0)
    words = ["a", "the", "cat", "dog", "sees", "hears", "runs", "red", "old", "big"]
    for split, rows in (("train", 100), ("valid", 30), ("test", 30)):
        lines = [" ".join(rng.choice(words, rng.integers(2, 7))) for _ in range(rows)]
        (folder / f"{split}.txt").write_text("\n".join(lines) + "\n")
    return folder


def settings_for(corpus, name="scale_vae", **hyperparameters) -> config.Config:
    return config.Config(
        data=config.Data(path=str(corpus), buckets=1),
        model=config.Network(embedding=5, hidden=6, latent=3),
        method=config.MethodConfig(name=name, **hyperparameters),
        optim=config.Optim(min_decay_epoch=0, patience=1, learning_rate=0.5),
        train=config.Train(max_epochs=3, batch_size=32),
        eval=config.Eval(batch_size=32, iw_samples=4),
        checkpoint=config.Checkpoint(every_steps=3),
    )


class Interrupt:
    """Signals that say SIGINT after so many looks."""

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


def final(folder, settings):
    """The last state that the run saved, and its log without the clock."""
    settings = config.with_defaults(settings)
    method = config.build_method(settings)
    words = workdir.vocab.load(folder / "vocab.txt")
    model = config.build_model(settings, method, len(words))
    steps = json.loads((folder / "run.json").read_text())["steps_per_epoch"]
    keeper = workdir.checkpoints(folder, settings, words)
    state = keeper.only(checkpoint.LATEST, workdir.abstract_state(settings, model, method, steps))
    keeper.close()
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return state, [{key: value for key, value in line.items() if key not in CLOCK} for line in lines]


@pytest.fixture(scope="module", autouse=True)
def compiled_once():
    """Runs of one configuration share their compiled steps, as the lives of a run in one process could."""
    with pytest.MonkeyPatch.context() as patch:
        methods = functools.cache(lambda text, build=config.build_method: build(CONFIGS[text]))

        def build_method(settings):
            text = repr(config.with_defaults(settings).method)
            CONFIGS[text] = settings
            return methods(text)

        patch.setattr(config, "build_method", build_method)
        patch.setattr(workdir, "optimizer", functools.cache(optax.clip_by_global_norm))
        patch.setattr(loop.workdir, "optimizer", lambda settings, clip=workdir.optimizer: clip(settings.optim.clip))
        for maker in ("make_steps", "make_inference"):
            patch.setattr(loop, maker, functools.cache(getattr(loop, maker)))
        yield


CONFIGS = {}
EVERY_METHOD = {name: {} for name in METHODS} | {
    "sa_vae": {"svi_steps": 2},
    "agg_vae": {"inner_steps": 3, "window": 2},
    "du_vae": {"warm_up": 1.0},
    "scale_vae": {"f_epo": 1, "factor_average": "median"},
    "scale_vae_matched": {"f_epo": 1},
}


OFTEN = ("agg_vae", "du_vae", "scale_vae")  # the rest takes minutes


@pytest.mark.parametrize(
    ("name", "hyperparameters"),
    [pytest.param(*each, marks=[] if each[0] in OFTEN else pytest.mark.slow) for each in EVERY_METHOD.items()],
)
def test_a_run_stopped_anywhere_ends_as_the_uninterrupted_one(name, hyperparameters, corpus, tmp_path, monkeypatch):
    settings = settings_for(corpus, name, **hyperparameters)
    train.train(settings, tmp_path / "whole")
    expected, lines = final(tmp_path / "whole", settings)
    for looks in (2, 4):
        monkeypatch.setattr(command, "Signals", lambda looks=looks: Interrupt(looks))
        with pytest.raises(signals.Stopped):
            train.train(settings, tmp_path / "stopped")
    monkeypatch.setattr(command, "Signals", lambda: Interrupt(1000))
    train.train(settings, tmp_path / "stopped")
    state, again = final(tmp_path / "stopped", settings)
    assert again == lines
    assert [line["epoch"] for line in lines] == [1, 2, 3]
    assert checkpoint.describe(state) == checkpoint.describe(expected)


def test_a_step_is_compiled_once(corpus, tmp_path, monkeypatch):
    """Not again after the first step, at the start of an epoch, after a cut of the rate; once more in a second life."""
    compiling, lives = Compiling(), []

    def make_steps(*arguments):
        made = steps.make_steps(*arguments)
        lives.append(0)

        def joint(state, batch):
            compiling.take()
            out = made.joint(state, batch)
            lives[-1] += compiling.take() > 0
            return out

        return made._replace(joint=joint)

    monkeypatch.setattr(loop, "make_steps", make_steps)
    settings = settings_for(corpus)
    settings.train.max_epochs, settings.optim.learning_rate = 6, 8.0
    monkeypatch.setattr(command, "Signals", lambda: Interrupt(6))
    with compiling:
        with pytest.raises(signals.Stopped):
            train.train(settings, tmp_path)
        monkeypatch.setattr(command, "Signals", lambda: Interrupt(1000))
        train.train(settings, tmp_path)
    _, lines = final(tmp_path, settings)
    assert lines[-1]["lr"] < lines[0]["lr"]
    assert lives == [1, 1]


def test_several_steps_a_dispatch_are_the_same_steps(corpus, tmp_path, monkeypatch):
    """To rounding; stopped and resumed, to the bit. A profile does not change them."""
    settings = settings_for(corpus)
    train.train(settings, tmp_path / "single")
    expected, _ = final(tmp_path / "single", settings)
    settings.train.steps_per_dispatch = 3  # of four an epoch
    monkeypatch.setattr(profiler, "SKIPPED", 3)  # what is compiled, or is no step, would be traced for half a minute
    monkeypatch.setattr(profiler, "TRACED", 1)
    train.train(settings, tmp_path / "several", profile=True)
    assert list((tmp_path / "several" / profiler.FOLDER).rglob("perfetto_trace.json.gz"))
    state, lines = final(tmp_path / "several", settings)
    np.testing.assert_allclose(tiny.flat(state.params), tiny.flat(expected.params), rtol=1e-4, atol=1e-5)
    monkeypatch.setattr(command, "Signals", lambda: Interrupt(3))
    with pytest.raises(signals.Stopped, match="stopped at step 7"):
        train.train(settings, tmp_path / "stopped")
    monkeypatch.setattr(command, "Signals", lambda: Interrupt(1000))
    train.train(settings, tmp_path / "stopped")
    again, same = final(tmp_path / "stopped", settings)
    assert same == lines
    assert checkpoint.describe(again) == checkpoint.describe(state)


def test_a_profile_of_a_run_that_is_too_short_says_so(corpus, tmp_path, capsys):
    settings = settings_for(corpus)
    settings.train.max_steps = 2
    train.train(settings, tmp_path, profile=True)
    assert "profile: the run ended before its 10th dispatch; nothing was traced" in capsys.readouterr().out
    assert not (tmp_path / profiler.FOLDER).exists()


def test_a_finished_run_is_left_alone_and_another_configuration_is_refused(corpus, tmp_path, capsys):
    settings = settings_for(corpus)
    train.train(settings, tmp_path)
    before, _ = final(tmp_path, settings)
    capsys.readouterr()
    train.train(settings, tmp_path)
    assert "finished before: 3 epochs, 12 steps; nothing is left to train" in capsys.readouterr().out
    after, lines = final(tmp_path, settings)
    assert int(before.step) == int(after.step)
    assert len(lines) == 3
    settings.model.hidden = 7
    with pytest.raises(InputError, match=r"model\.hidden was 6 and is 7"):
        train.train(settings, tmp_path)


def test_the_best_checkpoint_is_the_best_epoch(corpus, tmp_path):
    settings = settings_for(corpus)
    settings.train.max_epochs = 6
    settings.optim.learning_rate = 8.0
    train.train(settings, tmp_path)
    _, lines = final(tmp_path, settings)
    best = min(lines, key=lambda line: line["valid_loss"])
    assert load.load(tmp_path).epoch == best["epoch"]


def test_a_state_saved_in_passing_is_the_state_of_that_step(corpus, tmp_path, monkeypatch):
    """Saving goes on behind while the next steps reuse the state's own buffers."""
    seen = {}
    save = checkpoint.Checkpoints.save

    def spy(self, which, state):
        seen[int(state.step)] = np.concatenate([np.array(x).ravel() for x in jax.tree.leaves(state.params)])
        save(self, which, state)

    monkeypatch.setattr(checkpoint.Checkpoints, "save", spy)
    settings = settings_for(corpus)
    monkeypatch.setattr(command, "Signals", lambda: Interrupt(3))
    with pytest.raises(signals.Stopped):
        train.train(settings, tmp_path)
    state, _ = final(tmp_path, settings)
    saved = np.concatenate([np.array(x).ravel() for x in jax.tree.leaves(state.params)])
    np.testing.assert_array_equal(saved, seen[int(state.step)])


def line(**changes):
    normal = {"mi": 2.0, "au_hat": 3, "kl_weight": 1.0, "epoch": 5, "factor_max": 2.0}
    return normal | changes


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, None),
        ({"mi": 0.05}, "collapsed"),
        ({"au_hat": 0}, "collapsed"),
        ({"mi": 0.05, "kl_weight": 0.9}, None),
        ({"mi": None, "au_hat": None}, None),
        ({"factor_max": 51.0}, "run away"),
        ({"factor_max": 51.0, "epoch": 3}, None),
        ({"factor_max": None}, None),
    ],
)
def test_collapse_and_a_runaway_factor_are_said_with_two_remedies(changes, said):
    warnings = loop.warnings(line(**changes), METHODS["scale_vae"](f_epo=3))
    texts = [text for text in warnings.values() if text is not None]
    assert [said in text for text in texts] == ([True] if said else [])
    for text in texts:
        assert "Try" in text
        assert " or " in text.split("Try")[1]


@pytest.mark.parametrize(
    ("method", "weight", "said"),
    [
        (METHODS["beta_vae"](beta=0.4), 0.4, True),
        (METHODS["beta_vae"](beta=2.0), 2.0, True),
        (METHODS["vae"](warm_up=10.0), 0.9, False),
        (METHODS["vae"](warm_up=10.0), 1.0, True),
        (METHODS["cyclical"](cycle_epochs=2.0, cycles=3), 0.5, False),
        (METHODS["cyclical"](cycle_epochs=2.0, cycles=3), 1.0, True),
    ],
)
def test_collapse_is_said_from_the_methods_full_kl_weight_on(method, weight, said):
    assert (loop.warnings(line(mi=0.05, kl_weight=float(np.float32(weight))), method)["collapsed"] is not None) == said


@pytest.mark.parametrize(
    ("name", "where", "several"), [("scale_vae", "step 2", 1), ("agg_vae", "step 1", 1), ("scale_vae", "step 2", 3)]
)
def test_a_step_that_is_not_finite_stops_the_run_and_is_kept_for_replay(name, where, several, corpus, tmp_path, capsys):
    """The learning rate is too large on purpose; all before the step is kept, and the step can be taken again."""
    settings = settings_for(corpus, name, **EVERY_METHOD[name])
    settings.train.steps_per_dispatch = several
    settings.optim.learning_rate, settings.optim.clip = 1e30, 1e30
    for _ in range(2):  # the same command says the same
        with pytest.raises(InputError, match=rf"not finite in {where} of epoch 1 .*lr 1e\+30.*replay") as said:
            train.train(settings, tmp_path)
        assert len(str(said.value).splitlines()) == 1
    facts = json.loads((tmp_path / fault.FILE).read_text())
    wanted = {"step", "epoch", "lr", "loss", "gradient_norm", "kl_weight", "factor", "batch", "parameters_not_finite"}
    assert wanted <= set(facts)
    assert facts["batch"]["tokens"]
    state, _ = final(tmp_path, settings)
    assert f"step {int(state.step) + 1}" == where
    assert replay.replay(tmp_path)
    assert f"recorded: {where} of epoch 1" in capsys.readouterr().out


def test_one_bad_batch_is_skipped_and_counted_and_nothing_else_changes(corpus, tmp_path, monkeypatch):
    """A batch that gives NaN in the second epoch, once."""
    settings = settings_for(corpus, "vae")
    settings.train.skip_nonfinite = True
    make = steps.device_update

    def spoiled(model, method, optimizer, steps_per_epoch, move="joint", skip=False):
        weight = method.kl_weight
        bad = dataclasses.replace(
            method, kl_weight=lambda t: jnp.where(jnp.abs(t * steps_per_epoch - 6) < 0.5, jnp.nan, weight(t))
        )
        return make(model, bad, optimizer, steps_per_epoch, move, skip)

    monkeypatch.setattr(steps, "device_update", spoiled)
    monkeypatch.setattr(loop, "make_steps", steps.make_steps)
    train.train(settings, tmp_path)
    state, lines = final(tmp_path, settings)
    assert [line["skipped"] for line in lines] == [0, 1, 1]
    assert int(state.step) == 12
    assert all(np.isfinite(tiny.flat(state.params)))


def test_a_validation_loss_that_is_not_finite_ends_the_run_with_all_saved(corpus, tmp_path, monkeypatch):
    settings = settings_for(corpus)
    summary = posteriors.SplitPosteriors.summary
    monkeypatch.setattr(posteriors.SplitPosteriors, "summary", lambda *a: summary(*a) | {"loss": float("nan")})
    with pytest.raises(
        InputError, match=r"the validation loss is nan after epoch 1 \(step 4, lr 0.5\), which is saved"
    ):
        train.train(settings, tmp_path)
    state, lines = final(tmp_path, settings)
    assert (int(state.step), int(state.epoch), lines) == (4, 1, [])


class Flagged(Interrupt):
    """A signal that comes in the middle of validation."""

    def __init__(self):
        super().__init__(1000)

    @contextlib.contextmanager
    def at_once(self):
        yield
        raise signals.Interrupted


def test_a_signal_in_validation_is_obeyed_at_once(corpus, tmp_path, monkeypatch):
    settings = settings_for(corpus)
    train.train(settings, tmp_path / "whole")
    expected, lines = final(tmp_path / "whole", settings)
    monkeypatch.setattr(command, "Signals", Flagged)
    with pytest.raises(signals.Stopped, match="stopped at step 4, and saved"):
        train.train(settings, tmp_path / "run")
    monkeypatch.setattr(command, "Signals", lambda: Interrupt(1000))
    train.train(settings, tmp_path / "run")
    state, again = final(tmp_path / "run", settings)
    assert again == lines
    assert checkpoint.describe(state) == checkpoint.describe(expected)


def test_a_damaged_checkpoint_does_not_lose_the_run(corpus, tmp_path, capsys):
    settings = settings_for(corpus)
    train.train(settings, tmp_path / "whole")
    expected, lines = final(tmp_path / "whole", settings)
    shutil.copytree(tmp_path / "whole", tmp_path / "run")
    newest = max((tmp_path / "run/checkpoints/latest").iterdir(), key=lambda path: int(path.name))
    shutil.rmtree(newest / "state")
    train.train(settings, tmp_path / "run")
    assert f"the latest checkpoint, of step {newest.name}, is damaged" in capsys.readouterr().out
    state, again = final(tmp_path / "run", settings)
    assert again == lines
    assert checkpoint.describe(state) == checkpoint.describe(expected)
    for manifest in (tmp_path / "run/checkpoints").rglob("manifest.ocdbt"):
        manifest.write_bytes(b"")
    with pytest.raises(InputError, match="no whole checkpoint is left"):
        train.train(settings, tmp_path / "run")
    with pytest.raises(InputError, match=r"the best checkpoint, of step .* --fallback takes the newest whole"):
        load.load(tmp_path / "run")


def test_fallback_takes_the_newest_whole_checkpoint(corpus, tmp_path, capsys):
    settings = settings_for(corpus)
    train.train(settings, tmp_path)
    for manifest in (tmp_path / "checkpoints/best").rglob("manifest.ocdbt"):
        manifest.write_bytes(b"")
    for _ in range(2):
        assert load.load(tmp_path, fallback=True).epoch == 3
        assert "the newest whole checkpoint is taken instead" in capsys.readouterr().out
        train.train(settings, tmp_path)  # finished: what is left of it is left alone
        assert "finished before" in capsys.readouterr().out


def test_a_best_checkpoint_that_is_gone_is_made_anew(corpus, tmp_path):
    """As after a kill between its putting aside and the next save: the next epoch is the best, though it is worse."""
    settings = settings_for(corpus)
    train.train(settings, tmp_path)
    state, _ = final(tmp_path, settings)
    with contextlib.closing(
        workdir.checkpoints(tmp_path, settings, load.read_definition(tmp_path)[1], writing=True)
    ) as kept:
        kept.save(checkpoint.LATEST, state._replace(plateau=state.plateau._replace(best=jnp.float32(0))))
    shutil.rmtree(tmp_path / "checkpoints/best")
    settings.train.max_epochs = 4
    train.train(settings, tmp_path)
    assert load.load(tmp_path).epoch == 4


def test_a_run_that_saved_nothing_does_not_hold_its_folder(corpus, tmp_path, monkeypatch):
    settings = settings_for(corpus)
    with monkeypatch.context() as patch:
        patch.setattr(train, "fit", lambda run, state: (_ for _ in ()).throw(MemoryError))
        with pytest.raises(MemoryError):
            train.train(settings, tmp_path)
    settings.train.seed = 5
    train.train(settings, tmp_path)
    assert json.loads((tmp_path / workdir.CONFIG).read_text())["train"]["seed"] == 5


@pytest.mark.parametrize(
    ("backend", "devices", "most", "pauses"), [("gpu", 1, 3, 0), ("gpu", 4, 3, 0), ("cpu", 1, 0, 20), ("cpu", 4, 0, 20)]
)
def test_steps_in_flight_are_bounded_by_their_time(monkeypatch, rng, backend, devices, most, pauses):
    """Steps of 0.3 s: never more than a second of them after the first few; on a CPU one after another, with a pause
    in which the memory of each is freed."""
    clock, slept = [0.0], []
    monkeypatch.setattr(loop.jax, "default_backend", lambda: backend)
    monkeypatch.setattr(loop.jax, "device_count", lambda: devices)
    monkeypatch.setattr(loop.time, "sleep", slept.append)
    monkeypatch.setattr(loop.time, "monotonic", lambda: clock[0])

    class Step:
        def __array__(self, dtype=None, copy=None):
            clock[0] += 0.3
            return np.zeros((), np.int32)

    flight, batch = loop.Flight(), tiny.make_batch(rng)
    told = steps.StepInfo(objective.zero_sums(), jnp.float32(0), jnp.float32(0), Step())
    waiting = []
    for _ in range(20):
        flight.add(told, [batch], lambda k: batch)
        waiting.append(len(flight._steps))
    assert (max(waiting), len(slept)) == (most, pauses)
    flight.land()
    assert len(flight._steps) == 0


def test_a_checkpoint_that_can_not_be_written_ends_the_run_and_harms_no_other(corpus, tmp_path):
    """Files larger than a kilobyte can not be written, as on a full disk; then they can."""
    settings = settings_for(corpus)
    settings.train.max_epochs = 1
    train.train(settings, tmp_path)
    settings.train.max_epochs = 3
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(InputError, match=r"could not be written|File too large") as said:
            train.train(settings, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert len(str(said.value).splitlines()) == 1
    state, _ = final(tmp_path, settings)
    assert int(state.step) == 4
    train.train(settings, tmp_path)
    _, lines = final(tmp_path, settings)
    assert [line["epoch"] for line in lines] == [1, 2, 3]


def test_a_folder_that_can_not_be_made_and_one_that_vanishes_are_a_line(corpus, tmp_path, monkeypatch):
    with pytest.raises(InputError, match="Make the folder writable"):
        train.train(settings_for(corpus), pathlib.Path("/proc/run"))
    write = EpochLog.write

    def vanish(log, *rest):
        (tmp_path / "run").rename(tmp_path / "gone")
        write(log, *rest)

    monkeypatch.setattr(EpochLog, "write", vanish)
    with pytest.raises(InputError, match=r"No such file or directory|could not be written") as said:
        train.train(settings_for(corpus), tmp_path / "run")
    assert len(str(said.value).splitlines()) == 1


def test_a_second_process_is_refused(corpus, tmp_path):
    with lock.Lock(tmp_path), pytest.raises(InputError, match="is training here"):
        train.train(settings_for(corpus), tmp_path)


def test_only_what_may_change_changes(corpus):
    settings = config.with_defaults(settings_for(corpus))
    longer = dataclasses.replace(settings, train=dataclasses.replace(settings.train, max_epochs=9))
    assert config.differences(settings, longer) == []
    other = dataclasses.replace(settings, train=dataclasses.replace(settings.train, seed=9))
    assert config.differences(settings, other) == ["train.seed was 0 and is 9"]


@pytest.mark.slow
def test_a_run_killed_at_random_moments_reaches_the_same_end(tmp_path):
    """Six of the forty kills of `python tests/kill_loop.py`."""
    tally = kill_loop.loop(6, 1, tmp_path)
    assert (tally["kills"], tally["mismatches"], tally["failed_lives"]) == (6, 0, 0), tally
