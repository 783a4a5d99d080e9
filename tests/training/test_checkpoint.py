"""Saved states: every array is what was saved, or a line says which step is damaged and how."""

import contextlib
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from scalevae_jax.core.types import InputError
from scalevae_jax.training import checkpoint
from scalevae_jax.training.checkpoint import BEST, LATEST, Checkpoints, Damaged, Saved

ABOUT = {"method": "scale_vae", "vocabulary": "13 words"}


def at(state, step):
    """The state as it might be at another step."""
    return state._replace(step=jnp.int32(step), epoch=jnp.int32(step), sums=state.sums._replace(rec=jnp.float32(step)))


@pytest.fixture(scope="module")
def state():
    return tiny.make_state(tiny.make_method("scale_vae"))


@pytest.fixture(scope="module")
def kept(state, tmp_path_factory):
    """A workdir with steps 4 and 6 as the latest and 2 as the best."""
    folder = tmp_path_factory.mktemp("kept")
    keeper = Checkpoints(folder, ABOUT, writing=True)
    keeper.save(BEST, at(state, 2))
    for step in (1, 4, 6):
        keeper.save(LATEST, at(state, step))
    keeper.close()
    return folder


@pytest.fixture
def workdir(kept, tmp_path):
    shutil.copytree(kept, tmp_path / "run")
    return tmp_path / "run"


def each(damage):
    """Of every data file: small arrays lie in two of them, and which one is read is orbax's affair."""

    def all_of_them(folder):
        files = [path for path in folder.rglob("d/*") if path.is_file()]
        assert files
        for path in files:
            damage(path)

    return all_of_them


def flip(path):
    """One bit of the middle byte."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def halve(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def forge(folder):
    """Another number in an array, saved as orbax saves: only the digest can tell."""
    meta = json.loads((folder / "meta/metadata").read_text())
    meta["arrays"]["params/encoder/embedding"][2] = "0" * 32
    (folder / "meta/metadata").write_text(json.dumps(meta))


DAMAGE = {
    "data cut to half": (each(halve), "arrays are not readable"),
    "data deleted": (each(lambda path: path.unlink()), "arrays are not readable"),
    "one byte flipped": (each(flip), "array"),
    "another array": (forge, "array params/encoder/embedding is not the one that was saved (its digest differs)"),
    "_METADATA deleted": (lambda folder: (folder / "state/_METADATA").unlink(), "arrays are not readable"),
    "_METADATA cut": (lambda folder: halve(folder / "state/_METADATA"), "arrays are not readable"),
    "manifest deleted": (lambda folder: (folder / "state/manifest.ocdbt").unlink(), "arrays are not readable"),
    "manifest cut": (lambda folder: halve(folder / "state/manifest.ocdbt"), "arrays are not readable"),
    "state deleted": (lambda folder: shutil.rmtree(folder / "state"), "arrays are not readable"),
    "record deleted": (lambda folder: shutil.rmtree(folder / "meta"), "its record is not readable"),
    "record cut": (lambda folder: halve(folder / "meta/metadata"), "its record is not readable"),
    "record flipped": (lambda folder: flip(folder / "meta/metadata"), ""),
    "all deleted": (lambda folder: [shutil.rmtree(x) for x in (folder / "state", folder / "meta")], "record"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_damage_is_one_line_that_names_the_step_and_the_next_whole_one_is_taken(case, workdir, state, capsys):
    damage, what = DAMAGE[case]
    damage(workdir / "checkpoints/latest/6")
    keeper = Checkpoints(workdir, ABOUT)
    with pytest.raises(InputError) as said:
        keeper.only(LATEST, state)
    text = str(said.value)
    assert text.startswith(f"{workdir}: the latest checkpoint, of step 6, ")
    assert what in text
    assert len(text.splitlines()) == 1
    if isinstance(said.value, Damaged):
        assert int(keeper.newest(state).step) == 4
        out = capsys.readouterr()
        assert out.out.startswith(f"WARNING: {workdir}: the latest checkpoint, of step 6, is damaged: ")
        assert out.out.endswith("; the latest checkpoint, of step 4, is whole and taken instead\n")
        assert len(out.out.splitlines()) == 1
        assert out.err == ""
    keeper.close()


@pytest.mark.parametrize("name", ["_CHECKPOINT_METADATA", "commit_success.txt", "state/_sharding"])
def test_what_orbax_does_not_need_is_not_missed(name, workdir, state):
    path = workdir / "checkpoints/latest/6" / name
    if not path.exists():
        pytest.skip("this version of orbax writes no such file")
    path.unlink()
    keeper = Checkpoints(workdir, ABOUT)
    assert checkpoint.describe(keeper.only(LATEST, state)) == checkpoint.describe(at(state, 6))
    keeper.close()


def test_any_flipped_byte_of_the_arrays_is_found(workdir, state, rng):
    """Eight random bytes of the data files, one after another."""
    folder = workdir / "checkpoints/latest/6"
    files = [path for path in sorted(folder.rglob("d/*")) if path.stat().st_size]
    keeper = Checkpoints(workdir, ABOUT)
    expected = checkpoint.describe(at(state, 6))
    for _ in range(8):
        path = files[rng.integers(len(files))]
        before = path.read_bytes()
        data = bytearray(before)
        data[rng.integers(len(data))] ^= 1 << rng.integers(8)
        path.write_bytes(data)
        with contextlib.suppress(Damaged):
            assert checkpoint.describe(keeper.only(LATEST, state)) == expected  # a byte that nobody reads
        path.write_bytes(before)
    keeper.close()


def test_where_nothing_is_whole_all_damage_is_named(workdir, state):
    for path in (workdir / "checkpoints").glob("*/*/state/manifest.ocdbt"):
        halve(path)
    keeper = Checkpoints(workdir, ABOUT)
    with pytest.raises(Damaged, match=r"of step 6, is damaged.*of step 4, .*of step 2, .*no whole checkpoint is left"):
        keeper.newest(state)
    keeper.close()


def test_a_run_that_goes_on_puts_the_damaged_aside_and_saves_that_step_again(workdir, state):
    each(halve)(workdir / "checkpoints/latest/6")
    keeper = Checkpoints(workdir, ABOUT, writing=True)
    assert int(keeper.newest(state).step) == 4
    assert (workdir / "checkpoints/damaged/latest-6").is_dir()
    keeper.save(LATEST, at(state, 6))
    assert checkpoint.describe(keeper.only(LATEST, state)) == checkpoint.describe(at(state, 6))
    assert keeper.check_best(state)
    each(halve)(workdir / "checkpoints/best/2")
    assert not keeper.check_best(state)
    assert not keeper.check_best(state)  # there is none
    keeper.close()


def test_latest_and_best_are_kept_apart_and_another_state_of_a_step_replaces_it(workdir, state):
    keeper = Checkpoints(workdir, ABOUT, writing=True)
    assert keeper.saved() == [Saved(LATEST, 6), Saved(LATEST, 4), Saved(BEST, 2)]
    changed = at(state, 6)._replace(epoch=jnp.int32(9))
    keeper.save(LATEST, changed)
    assert int(keeper.only(LATEST, state).epoch) == 9
    keeper.save(LATEST, changed)
    assert keeper.saved()[0] == Saved(LATEST, 6)
    keeper.close()


def other_shape(state):
    return state._replace(key=state.key, sums=state.sums._replace(kl=jax.ShapeDtypeStruct((2,), np.float32)))


@pytest.mark.parametrize(
    ("about", "change", "message"),
    [
        ({"method": "vae"}, lambda s: s, "has method scale_vae, and the run has vae"),
        ({"vocabulary": "14 words"}, lambda s: s, "has vocabulary 13 words, and the run has 14 words"),
        ({}, other_shape, "has sums/kl as float32 of []; the run wants float32 of [2]"),
        ({}, lambda s: s._replace(step=np.float32(0)), "has step as int32 of []; the run wants float32 of []"),
        ({}, lambda s: s._replace(params=s.params | {"more": np.float32(0)}), "has params/more as nothing; the run"),
        ({}, lambda s: s._replace(params={}), "; the run wants nothing"),
    ],
)
def test_a_checkpoint_of_something_else_is_named(about, change, message, kept, state):
    keeper = Checkpoints(kept, ABOUT | about)
    with pytest.raises(InputError) as said:
        keeper.newest(change(state))
    assert not isinstance(said.value, Damaged)
    assert message in str(said.value)
    keeper.close()


def test_reading_changes_nothing_on_the_disk(workdir, state):
    def content():
        return {path: path.read_bytes() if path.is_file() else None for path in workdir.rglob("*")}

    before = content()
    keeper = Checkpoints(workdir, ABOUT)
    keeper.newest(state)
    keeper.close()
    assert content() == before


def test_without_a_checkpoint_there_is_a_line_or_none(tmp_path, state):
    keeper = Checkpoints(tmp_path, ABOUT)
    assert keeper.newest(state) is None
    with pytest.raises(InputError, match="no best checkpoint here; train first"):
        keeper.only(BEST, state)
    assert list(tmp_path.iterdir()) == []
