"""-log p(x) of every sentence of a split by importance-weighted draws: resumed after a stop, doubled until settled."""

import contextlib
import fcntl
import functools
import itertools
import json
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import Float, Int

from scalevae_jax.core.mixture import Mixture
from scalevae_jax.core.network import Model
from scalevae_jax.core.types import Array, Batch, Keys, Params
from scalevae_jax.data import loader
from scalevae_jax.inference import metrics
from scalevae_jax.inference.load import LoadedModel
from scalevae_jax.inference.metrics import TENTH
from scalevae_jax.methods import objective
from scalevae_jax.methods.method import Method
from scalevae_jax.runtime import console, devices, processes, storage
from scalevae_jax.runtime.storage import Path

ROWS_AT_ONCE = 2048  # sentences times draws: enough to keep a matrix product busy; more would only overflow the cache
AUTO = "auto"  # in place of a number of draws
AUTO_FIRST, AUTO_MOST = 100, 6400  # draws that `auto` begins with, and ends with at the latest
SETTLED = 0.1  # nats: `auto` ends when twice as many draws move `nll` by less
Entry = dict[str, Any]  # one batch: its rows of the split, and their values by estimate


@functools.cache
def make_importance(
    model: Model, method: Method, samples: int, chunk: int, proposal_scale: float = 1.0
) -> Callable[[Params, Any, Batch, Keys, Mapping[str, Mixture], Any], dict[str, Float[Array, " batch"]]]:
    """The importance-weighted step: what `metrics.importance_weighted` gives, [devices, rows / devices]. The last
    arguments of the step are the fitted priors and the number of the first draw."""

    def step(
        params: Params, method_state: Any, batch: Batch, key: Keys, priors: Mapping[str, Mixture], first: Int[Array, ""]
    ) -> dict[str, Array]:
        keys = objective.row_keys(key, batch.row)
        posteriors, _ = objective.infer(model, method, params, method_state, batch, keys)
        return metrics.importance_weighted(
            model, params, posteriors, batch, keys, priors, samples, chunk, proposal_scale, first
        )

    return devices.pmap_over_devices(step, (None, None, 0, None, None, None), out_axes=0)


def draws_at_once(mib: int, rows: int, vocabulary: int, hidden: int) -> int:
    """How many draws of `rows` sentences to take together in at most so many MiB. A draw needs the logits of one step
    twice, and the gates and the state of the LSTM."""
    fitting = mib * 2**18 // (rows * (2 * vocabulary + 8 * hidden))
    return max(1, min(fitting, -(-ROWS_AT_ONCE // rows)))


class ImportanceSampling(NamedTuple):
    """How -log p(x) is estimated: by `samples` draws a sentence, `chunk` of them at once (0 is as many as
    eval.memory_mib holds), with `priors` for the estimates of these names. The draws come from q_hat with its standard
    deviations times `proposal_scale`."""

    samples: int
    priors: Mapping[str, Mixture]
    estimates: tuple[str, ...] = metrics.ESTIMATES
    chunk: int = 0
    proposal_scale: float = 1.0


def by_batch(
    run: LoadedModel,
    batches: loader.Loader,
    key: jax.Array,
    sampling: ImportanceSampling,
    start: int = 0,
    first: int = 0,
) -> Iterator[tuple[np.ndarray, dict[str, Float[np.ndarray, " batch"]]]]:
    """-log p(x) in nats by the draws from number `first` on, a batch at a time from batch `start` on: rows of the
    split, and their values by estimate, with the effective sample size of `nll` as `ess`, and TENTH."""
    rows, settings = batches.size // jax.device_count(), run.settings
    chunk = sampling.chunk or draws_at_once(settings.eval.memory_mib, rows, len(run.words), settings.model.hidden)
    weigh = make_importance(run.model, run.method, sampling.samples, chunk, sampling.proposal_scale)
    drawn = f"draws {first + 1} to {first + sampling.samples}"
    with console.Progress(f"nll, {drawn}: batch", len(batches), start) as progress:
        for done, batch in enumerate(batches.epoch(1, start=start), start + 1):
            shards = devices.shard(batch)
            nll = devices.unshard(
                weigh(run.params, run.method_state, shards, key, dict(sampling.priors), np.int32(first))
            )
            progress.tick(done)
            real = batch.weight > 0
            yield batch.row[real], {key: nll[key][real] for key in (*sampling.estimates, "ess", TENTH)}


@contextlib.contextmanager
def finished_batches(path: Path, identity: dict[str, Any]) -> Generator[tuple[list[Entry], Callable[[Entry], None]]]:
    """The batches that a stopped evaluation has finished, and a function that adds one more to them.

    They are lines of a file, after a first line that says what is evaluated; the file is deleted when the `with` block
    ends well. It is locked while it is in use: a second evaluation of the run at the same time keeps nothing, and
    neither disturbs the other. In a bucket, where no file can be appended to, nothing is kept either.
    """
    if storage.is_remote(path) or not processes.is_main_process():
        yield [], lambda entry: None
        return
    file: Any
    with path.open("a+", encoding="utf-8", errors="replace") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            console.log("another evaluation of this run is under way; this one cannot be resumed if it stops")
            yield [], lambda entry: None
            return

        def add(entry: Entry) -> None:
            file.write(json.dumps(entry) + "\n")
            file.flush()

        file.seek(0)
        text = file.read()
        whole = text[: text.rfind("\n") + 1]  # a kill may have cut the last line short
        try:
            lines = [json.loads(line) for line in whole.splitlines()]
        except ValueError:
            lines = []
        known = lines[:1] == [identity]
        file.truncate(len(whole) if known else 0)
        if not known:
            add(identity)
        yield lines[1:] if known else [], add
        path.unlink(missing_ok=True)


def _block(
    run: LoadedModel,
    batches: loader.Loader,
    key: jax.Array,
    sampling: ImportanceSampling,
    first: int,
    finished: Iterator[Entry],
    add: Callable[[Entry], None],
) -> dict[str, np.ndarray]:
    """-log p(x) of each sentence of the split by each estimate, and `ess`, by the draws from number `first` on; batches
    that are finished are not computed again."""
    keys = (*sampling.estimates, "ess", TENTH)
    known = list(itertools.islice(finished, len(batches)))
    start, nll = len(known), {key: np.zeros(len(batches.split), np.float32) for key in keys}
    for entry in known:
        for estimate, values in nll.items():
            values[entry["rows"]] = entry[estimate]
    if jax.process_count() > 1:  # the main process alone has read the file
        start, nll = jax.tree.map(np.array, multihost_utils.broadcast_one_to_all((start, nll)))
    for rows, computed in by_batch(run, batches, key, sampling, int(start), first):
        add({"rows": rows.tolist()} | {estimate: values.tolist() for estimate, values in computed.items()})
        for estimate, values in nll.items():
            values[rows] = computed[estimate]
    return {estimate: values.astype(np.float64) for estimate, values in nll.items()}


def _together(a: dict[str, np.ndarray], n: int, b: dict[str, np.ndarray], m: int) -> dict[str, np.ndarray]:
    """The estimates by all of n and m draws, and their effective sample size."""
    log_n, log_m, log_all = np.log(n), np.log(m), np.log(n + m)
    both = {key: log_all - np.logaddexp(log_n - a[key], log_m - b[key]) for key in a if key != "ess"}
    # from the effective samples (sum w)^2 / sum w^2 of each part, the sum of squares of all
    squares = np.logaddexp(*(2 * (log - part["nll"]) - np.log(part["ess"]) for log, part in ((log_n, a), (log_m, b))))
    return both | {"ess": np.exp(2 * (log_all - both["nll"]) - squares)}


def estimate(
    run: LoadedModel,
    batches: loader.Loader,
    key: jax.Array,
    sampling: ImportanceSampling,
    auto: bool,
    finished: Iterator[Entry],
    add: Callable[[Entry], None],
) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """-log p(x) of each sentence of the split by each estimate, and `ess`; and the mean of `nll` by the number of draws
    that it took, a tenth of them first. With `auto`, draws are doubled until this mean has settled."""
    nll, draws = _block(run, batches, key, sampling, 0, finished, add), sampling.samples
    tenth, bounds = nll.pop(TENTH), dict[int, float]()
    if "nll" in nll:
        bounds = {max(draws // 10, 1): float(tenth.mean()), draws: float(nll["nll"].mean())}
    while auto and 2 * draws <= AUTO_MOST:
        for first in range(draws, 2 * draws, sampling.samples):
            block = _block(run, batches, key, sampling, first, finished, add)
            nll = _together(nll, first, block, sampling.samples)
        draws *= 2
        bounds[draws] = float(nll["nll"].mean())
        if bounds[draws // 2] - bounds[draws] < SETTLED:
            break
    return nll, {str(number): bound for number, bound in bounds.items()}
