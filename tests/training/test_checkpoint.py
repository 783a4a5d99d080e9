"""Checkpoints: every array comes back to the bit, or a line says which step is damaged and how."""

import contextlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from scalevae_jax.core.types import InputError
from scalevae_jax.methods.method import METHODS
from scalevae_jax.training import state as training
from scalevae_jax.training.checkpoint import Checkpoints, Damaged, describe

ABOUT = {"method": "scale_vae", "vocabulary": "13 words"}


def make_state(name: str = "scale_vae", step: int = 0) -> training.TrainState:
    """A state of a method that holds random numbers, and was never trained."""
    method, rng = tiny.make_method(name), np.random.default_rng(step)
    like = jax.eval_shape(
        lambda: training.create(tiny.make_model(method), method, tiny.OPTIMIZER, 0.3, tiny.STEPS_PER_EPOCH, 0)
    )

    def fill(x):
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            return jax.random.key(step)
        return jnp.asarray(rng.integers(0, 2, x.shape) if x.dtype == bool else rng.normal(0, 9, x.shape), x.dtype)

    return jax.tree.map(fill, like)._replace(step=jnp.int32(step), epoch=jnp.int32(step))


def model_of(state: training.TrainState):
    return state.params, state.method_state


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A workdir whose best checkpoint is that of step 2, and whose newest are those of steps 4 and 6."""
    folder = tmp_path_factory.mktemp("saved")
    with contextlib.closing(Checkpoints(folder, ABOUT, writing=True)) as checkpoints:
        for step, loss in ((1, None), (2, 5.0), (4, 6.0), (6, None)):
            checkpoints.save(make_state(step=step), loss)
    return folder


@pytest.fixture
def workdir(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "run")


@pytest.mark.parametrize("name", METHODS)
def test_the_state_of_every_method_comes_back_to_the_bit(name, tmp_path):
    state = make_state(name, step=3)
    with contextlib.closing(Checkpoints(tmp_path, ABOUT, writing=True)) as checkpoints:
        checkpoints.save(state, 1.0)
    reader = Checkpoints(tmp_path, ABOUT)
    back = reader.newest(state)
    assert jax.tree.structure(back) == jax.tree.structure(state)
    assert describe(back) == describe(state)
    *model, epoch = reader.best_model(model_of(state))
    assert describe(tuple(model)) == describe(model_of(state))
    assert epoch == 2  # of an epoch 3 that had begun
    reader.close()


@pytest.mark.parametrize(
    ("losses", "kept", "best"),
    [
        ([None, None, None, None], [3, 4], None),
        ([5.0, 4.0, 3.0, 2.0], [3, 4], 4),
        ([5.0, 6.0, None, 7.0, None, None], [1, 5, 6], 1),
        ([None, 5.0, 4.0, None, 6.0, None], [3, 5, 6], 3),
        ([4.0, 4.0, 9.0, 9.0], [1, 3, 4], 1),  # of equals the first
    ],
)
def test_the_two_newest_and_the_best_are_kept(losses, kept, best, tmp_path):
    """A checkpoint without a loss, from the middle of an epoch, is never the best."""
    checkpoints, state = Checkpoints(tmp_path, ABOUT, writing=True), make_state()
    for step, loss in enumerate(losses, start=1):
        if step == 4:  # a second life
            checkpoints.close()
            checkpoints = Checkpoints(tmp_path, ABOUT, writing=True)
        checkpoints.save(state._replace(step=jnp.int32(step)), loss)
    assert checkpoints.best_step() == best
    checkpoints.close()
    assert sorted(int(path.name) for path in (tmp_path / "checkpoints").iterdir()) == kept


def test_another_state_replaces_that_of_its_step_and_the_same_state_does_not(workdir):
    with contextlib.closing(Checkpoints(workdir, ABOUT, writing=True)) as checkpoints:
        changed = make_state(step=6)._replace(epoch=jnp.int32(9))
        checkpoints.save(changed, 1.0)
        assert int(checkpoints.newest(changed).epoch) == 9
        checkpoints.save(changed)  # a signal just after the epoch's end
        assert (checkpoints.best_step(), checkpoints.steps()) == (6, [6, 4])


def flip(path):
    """One bit of the middle byte."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def halve(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def each(damage):
    """Damage every data file: small arrays lie in two of them, and orbax chooses which one it reads."""

    def all_of_them(folder):
        files = [path for path in folder.rglob("d/*") if path.is_file()]
        assert files
        for path in files:
            damage(path)

    return all_of_them


DAMAGE = {
    "data cut to half": (each(halve), "arrays are not readable"),
    "data deleted": (each(lambda path: path.unlink()), "arrays are not readable"),
    "one byte flipped": (each(flip), "array"),
    "_METADATA deleted": (lambda folder: (folder / "state/_METADATA").unlink(), "arrays are not readable"),
    "_METADATA cut": (lambda folder: halve(folder / "model/_METADATA"), "arrays are not readable"),
    "manifest deleted": (lambda folder: (folder / "model/manifest.ocdbt").unlink(), "arrays are not readable"),
    "manifest cut": (lambda folder: halve(folder / "state/manifest.ocdbt"), "arrays are not readable"),
    "state deleted": (lambda folder: shutil.rmtree(folder / "state"), "arrays are not readable"),
    "record deleted": (lambda folder: shutil.rmtree(folder / "meta"), "its record is not readable"),
    "record cut": (lambda folder: halve(folder / "meta/metadata"), "its record is not readable"),
    "record flipped": (lambda folder: flip(folder / "meta/metadata"), "its record is not readable"),
    "all deleted": (lambda folder: [shutil.rmtree(folder / x) for x in ("state", "model", "meta")], "record"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_damage_is_one_line_that_names_the_step_and_an_older_whole_state_is_taken(case, workdir, capfd):
    damage, what = DAMAGE[case]
    damage(workdir / "checkpoints/6")
    checkpoints = Checkpoints(workdir, ABOUT)
    assert describe(checkpoints.newest(make_state())) == describe(make_state(step=4))
    checkpoints.close()
    out, error = capfd.readouterr()
    assert out.startswith(f"WARNING: {workdir}: the checkpoint of step 6 is damaged: ")
    assert what in out
    assert out.endswith("; the newest intact one, of step 4, is used\n")
    assert (len(out.splitlines()), error) == (1, "")


@pytest.mark.parametrize("name", ["_CHECKPOINT_METADATA", "model/_sharding"])
def test_what_orbax_does_not_need_is_not_missed(name, workdir):
    (workdir / "checkpoints/6" / name).unlink()
    checkpoints = Checkpoints(workdir, ABOUT)
    assert describe(checkpoints.newest(make_state())) == describe(make_state(step=6))
    checkpoints.close()


def test_every_flipped_byte_is_found(workdir, rng):
    """Eight random bytes of the arrays and eight of the record, one after another."""
    folder, state = workdir / "checkpoints/6", make_state()
    arrays = [path for path in sorted(folder.rglob("d/*")) if path.stat().st_size]
    checkpoints, expected = Checkpoints(workdir, ABOUT), [describe(make_state(step=step)) for step in (6, 4)]
    for i in range(16):
        path = arrays[rng.integers(len(arrays))] if i % 2 else folder / "meta/metadata"
        before = path.read_bytes()
        data = bytearray(before)
        data[rng.integers(len(data))] ^= 1 << rng.integers(8)
        path.write_bytes(data)
        # orbax may not read the byte, if it is one of an array
        assert describe(checkpoints.newest(state)) in (expected if i % 2 else expected[1:])
        path.write_bytes(before)
    checkpoints.close()


def test_if_nothing_is_whole_all_damage_is_named(workdir):
    for path in (workdir / "checkpoints").glob("*/model/manifest.ocdbt"):
        halve(path)
    checkpoints = Checkpoints(workdir, ABOUT)
    with pytest.raises(Damaged, match=r"of step 6 is damaged.*of step 4 .*of step 2 .*no intact checkpoint is left"):
        checkpoints.newest(make_state())
    with pytest.raises(Damaged, match="no intact checkpoint is left"):
        checkpoints.newest_model(model_of(make_state()))
    checkpoints.close()


def test_a_reader_refuses_a_damaged_best_model_and_finds_the_newest(workdir):
    each(halve)(workdir / "checkpoints/2/model")
    shutil.rmtree(workdir / "checkpoints/6/state")  # which a model does not need
    checkpoints = Checkpoints(workdir, ABOUT)
    with pytest.raises(Damaged, match="the checkpoint of step 2 is damaged"):
        checkpoints.best_model(model_of(make_state()))
    *model, epoch = checkpoints.newest_model(model_of(make_state()))
    assert describe(tuple(model)) == describe(model_of(make_state(step=6)))
    assert epoch == 5
    checkpoints.close()


def test_a_run_that_goes_on_renames_the_damaged_and_another_epoch_becomes_the_best(workdir, capsys):
    each(halve)(workdir / "checkpoints/6")
    each(halve)(workdir / "checkpoints/2")
    with contextlib.closing(Checkpoints(workdir, ABOUT, writing=True)) as checkpoints:
        assert int(checkpoints.newest(make_state()).step) == 4
        assert capsys.readouterr().out.count("WARNING") == 2
        assert {path.name for path in (workdir / "checkpoints").glob("damaged-*")} == {"damaged-2", "damaged-6"}
        assert checkpoints.best_step() == 4
        checkpoints.save(make_state(step=6), 4.0)
        assert describe(checkpoints.newest(make_state())) == describe(make_state(step=6))
        assert checkpoints.best_step() == 6
    assert capsys.readouterr().out == ""


def other_shape(state):
    return state._replace(sums=state.sums._replace(kl=jax.ShapeDtypeStruct((2,), np.float32)))


@pytest.mark.parametrize(
    ("about", "change", "message"),
    [
        ({"method": "vae"}, lambda s: s, "has method scale_vae, the run has vae"),
        ({"vocabulary": "14 words"}, lambda s: s, "has vocabulary 13 words, the run has 14 words"),
        ({}, other_shape, "has sums/kl as float32 of [], the run expects float32 of [2]"),
        ({}, lambda s: s._replace(step=np.float32(0)), "has step as int32 of [], the run expects float32 of []"),
        ({}, lambda s: s._replace(params=s.params | {"more": np.float32(0)}), "has params/more as nothing, the run"),
        ({}, lambda s: s._replace(params={}), ", the run expects nothing"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(about, change, message, saved):
    checkpoints = Checkpoints(saved, ABOUT | about)
    with pytest.raises(InputError) as refusal:
        checkpoints.newest(change(make_state()))
    assert not isinstance(refusal.value, Damaged)
    assert message in str(refusal.value)
    checkpoints.close()


def test_reading_changes_nothing_on_disk(workdir):
    def content():
        return {path: path.read_bytes() if path.is_file() else None for path in workdir.rglob("*")}

    shutil.rmtree(workdir / "checkpoints/6/state")
    before = content()
    checkpoints = Checkpoints(workdir, ABOUT)
    checkpoints.newest(make_state())
    checkpoints.close()
    assert content() == before


def test_without_a_checkpoint_there_is_no_state_and_no_model(tmp_path):
    checkpoints = Checkpoints(tmp_path, ABOUT)
    assert checkpoints.newest(make_state()) is None
    with pytest.raises(InputError, match="no epoch has ended yet; train first"):
        checkpoints.best_model(model_of(make_state()))
    assert list(tmp_path.iterdir()) == []
