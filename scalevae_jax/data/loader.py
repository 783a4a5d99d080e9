"""Batches of a split: length buckets, a seeded partition, a seeded order, prepared ahead of the device.

What an epoch's k-th batch holds is a pure function of (seed, epoch, k), so the position in the data is one number.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from scalevae_jax.core.types import Batch, InputError
from scalevae_jax.data.corpus import Split

ALL = slice(None)
PARTITION_STREAM, ORDER_STREAM, DRAW_STREAM = range(3)


def bucket_lengths(lengths: np.ndarray, count: int) -> np.ndarray:
    """At most `count` padded lengths with the fewest padded slots, exactly, by dynamic programming on the histogram.

    0 gives every length its own, so that nothing is padded.
    """
    values, rows = np.unique(lengths, return_counts=True)
    if not 0 < count < len(values):
        return values
    below = np.concatenate([[0], np.cumsum(rows)])
    # cost[i, j]: slots when lengths i..j share one bucket
    cost = (below[None, 1:] - below[:-1, None]) * values[None, :].astype(np.float64)
    cost[np.tril_indices(len(values), -1)] = np.inf
    best, cuts = cost[0], []
    for _ in range(1, count):
        before = np.concatenate([[np.inf], best[:-1]])[:, None] + cost
        cuts.append(np.argmin(before, axis=0))
        best = np.min(before, axis=0)
    edges, end = [], len(values) - 1
    for cut in reversed(cuts):
        edges.append(values[end])
        end = cut[end] - 1
    edges.append(values[end])
    return np.array(edges[::-1])


class Partition(NamedTuple):
    """Which rows make which batch, and how long each batch is padded."""

    rows: list[np.ndarray]
    lengths: list[int]


def partition(pools: np.ndarray, edges: np.ndarray, batch_size: int, rng: np.random.Generator | None) -> Partition:
    """Cut each pool of rows into batches, in random order, or, without `rng`, in the order of the split.

    `pools[i]` is the pool of row i: pool p holds rows of bucket p % buckets, which are padded to its edge.
    """
    rows, padded = [], []
    for pool in np.unique(pools):
        members = np.flatnonzero(pools == pool)
        if rng is not None:
            members = rng.permutation(members)
        for start in range(0, len(members), batch_size):
            rows.append(members[start : start + batch_size])
            padded.append(int(edges[pool % len(edges)]))
    return Partition(rows, padded)


def assemble(split: Split, rows: np.ndarray, length: int, size: int, here: slice = ALL) -> Batch:
    """The batch of these rows, filled up to `size` rows by rows of weight 0. Host arrays. Tokens are read of the rows
    `here` alone; those of others are empty."""
    tokens = np.zeros((size, length), np.int32)
    lengths = np.ones(size, np.int32)
    weight = np.zeros(size, np.float32)
    index = np.zeros(size, np.int32)
    for i in range(len(rows))[here]:
        sentence = split[rows[i]]
        tokens[i, : len(sentence)] = sentence
    lengths[: len(rows)] = split.offsets[rows + 1] - split.offsets[rows]
    weight[: len(rows)] = 1
    index[: len(rows)] = rows
    return Batch(tokens, lengths, weight, index)


class _Source:
    """Whole batches as the elements of a grain source."""

    def __init__(self, split: Split, cut: Partition, order: np.ndarray, size: int, here: slice):
        self._split, self._cut, self._order, self._size, self._here = split, cut, order, size, here

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, i: int) -> Batch:
        at = self._order[i]
        return assemble(self._split, self._cut.rows[at], self._cut.lengths[at], self._size, self._here)


@dataclasses.dataclass(frozen=True)
class Loader:
    """`size` rows a batch, of which at most `batch_size` are real; `seed` None keeps the order of the split.

    `mode` is how batches are made: `fixed` once for all epochs, `repartitioned` anew each epoch, `grouped` once, each
    of rows of one label. `here` are the rows of every batch that this process reads. Raises InputError for `grouped`
    without labels.
    """

    split: Split
    edges: np.ndarray
    batch_size: int
    size: int
    seed: int | None = None
    mode: str = "fixed"
    here: slice = dataclasses.field(default_factory=lambda: ALL)

    @functools.cached_property
    def _pools(self) -> np.ndarray:
        bucket = np.searchsorted(self.edges, self.split.lengths)
        if self.seed is None or self.mode != "grouped":
            return bucket
        if self.split.labels is None:
            raise InputError("config.data.partition=grouped: the corpus has no labels; put `label<TAB>` in every line")
        return bucket + len(self.edges) * np.unique(self.split.labels, return_inverse=True)[1]

    @functools.cached_property
    def _partition(self) -> Callable[[int], Partition]:
        @functools.lru_cache(maxsize=1)
        def of(number: int) -> Partition:
            rng = None if self.seed is None else np.random.default_rng([self.seed, PARTITION_STREAM, number])
            return partition(self._pools, self.edges, self.batch_size, rng)

        return of

    def partition(self, epoch: int) -> Partition:
        """The partition of an epoch (from 1): always the same one, or one an epoch. The last one is kept."""
        return self._partition(epoch if self.mode == "repartitioned" else 0)

    def __len__(self) -> int:
        """Batches an epoch."""
        counts = np.unique(self._pools, return_counts=True)[1]
        return int(np.sum(-(-counts // self.batch_size)))

    def order(self, epoch: int) -> np.ndarray:
        """The batches of the epoch's partition in the order in which they are trained on."""
        if self.seed is None:
            return np.arange(len(self))
        return np.random.default_rng([self.seed, ORDER_STREAM, epoch]).permutation(len(self))

    def epoch(self, epoch: int, start: int = 0, end: int | None = None) -> Iterator[Batch]:
        """The batches of an epoch from position `start` to before `end`, made ahead in a thread."""
        import grain  # here, since importing it takes two seconds that no other command needs

        order = self.order(epoch)[start:end]
        if not len(order):
            return iter(())
        batches: Any = _Source(self.split, self.partition(epoch), order, self.size, self.here)
        source = grain.MapDataset.source(batches)
        return iter(source.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=4)))

    def groups(self, epoch: int, start: int = 0, end: int | None = None, most: int = 1) -> Iterator[list[Batch]]:
        """The batches of `epoch`, `most` at once where so many of one length follow one another, else one."""
        batches, cut = self.epoch(epoch, start, end), self.partition(epoch)
        lengths = [cut.lengths[at] for at in self.order(epoch)[start:end]]
        while lengths:
            count = most if lengths[:most] == lengths[:1] * most else 1
            yield list(itertools.islice(batches, count))
            del lengths[:count]

    def draw(self, epoch: int, step: int, k: int) -> Batch:
        """The k-th random training batch of a step, with replacement."""
        cut = self.partition(epoch)
        at = np.random.default_rng([self.seed or 0, DRAW_STREAM, step, k]).integers(len(cut.rows))
        return assemble(self.split, cut.rows[at], cut.lengths[at], self.size, self.here)

    def whole(self, batch: Batch) -> Batch:
        """A batch of this loader with the rows of all processes."""
        return assemble(self.split, batch.row[batch.weight > 0], batch.tokens.shape[1], self.size)


def padding_share(lengths: np.ndarray, edges: np.ndarray) -> float:
    """Padded slots over all slots."""
    return 1 - float(np.sum(lengths)) / float(np.sum(edges[np.searchsorted(edges, lengths)]))
