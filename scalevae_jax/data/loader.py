"""Batches of a split: length buckets, a seeded partition, a seeded order, prepared ahead of the device.

The k-th batch of an epoch is a pure function of (seed, epoch, k), so that the position in the data is one number.
"""

import dataclasses
import functools
import itertools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from scalevae_jax.core.types import Batch, InputError
from scalevae_jax.data.corpus import Split
from scalevae_jax.runtime import devices

ALL = slice(None)
PARTITION_STREAM, ORDER_STREAM, DRAW_STREAM = range(3)


def bucket_lengths(lengths: np.ndarray, count: int) -> np.ndarray:
    """At most `count` padded lengths with the fewest padded slots, exactly; 0 gives every length its own."""
    values, rows = np.unique(lengths, return_counts=True)
    if not 0 < count < len(values):
        return values
    # Dynamic programming on the histogram of lengths. cost[i, j]: slots of a bucket that holds lengths i to j.
    below = np.concatenate([[0], np.cumsum(rows)])
    cost = (below[None, 1:] - below[:-1, None]) * values[None, :].astype(np.float64)
    cost[np.tril_indices(len(values), -1)] = np.inf
    # fewest[j]: slots of lengths 0 to j in the buckets so far; each turn allows one bucket more.
    fewest, starts = cost[0], []
    for _ in range(1, count):
        slots = np.concatenate([[np.inf], fewest[:-1]])[:, None] + cost
        starts.append(np.argmin(slots, axis=0))
        fewest = np.min(slots, axis=0)
    edges, end = [], len(values) - 1
    for start in reversed(starts):
        edges.append(values[end])
        end = start[end] - 1
    edges.append(values[end])
    return np.array(edges[::-1])


class Partition(NamedTuple):
    """The rows of each batch, and the length to which each batch is padded."""

    rows: list[np.ndarray]
    lengths: list[int]


def partition(pools: np.ndarray, edges: np.ndarray, batch_size: int, rng: np.random.Generator | None) -> Partition:
    """Divide each pool of rows into batches, in random order, or, without `rng`, in the order of the split.

    `pools[i]` is the pool of row i: pool p holds rows of bucket p % len(edges), padded to that bucket's edge.
    """
    rows, lengths = [], []
    for pool in np.unique(pools):
        members = np.flatnonzero(pools == pool)
        if rng is not None:
            members = rng.permutation(members)
        for start in range(0, len(members), batch_size):
            rows.append(members[start : start + batch_size])
            lengths.append(int(edges[pool % len(edges)]))
    return Partition(rows, lengths)


def assemble(split: Split, rows: np.ndarray, length: int, size: int, local_rows: slice = ALL) -> Batch:
    """The batch of these rows as host arrays, filled up to `size` rows by rows of weight 0.

    Only the `local_rows` of the batch get their tokens; those of other processes stay empty.
    """
    tokens = np.zeros((size, length), np.int32)
    lengths = np.ones(size, np.int32)
    weight = np.zeros(size, np.float32)
    index = np.zeros(size, np.int32)
    for i in range(len(rows))[local_rows]:
        sentence = split[rows[i]]
        tokens[i, : len(sentence)] = sentence
    lengths[: len(rows)] = split.offsets[rows + 1] - split.offsets[rows]
    weight[: len(rows)] = 1
    index[: len(rows)] = rows
    return Batch(tokens, lengths, weight, index)


@dataclasses.dataclass(frozen=True)
class Loader:
    """`size` rows a batch, of which at most `batch_size` are real; `seed` None keeps the order of the split.

    `mode` says how batches are made: `fixed` once for all epochs, `repartitioned` anew each epoch, `grouped` once,
    each of rows of one label (section 4.4). This process reads the `local_rows` of every batch. Raises InputError for
    `grouped` without labels.
    """

    split: Split
    edges: np.ndarray
    batch_size: int
    size: int
    seed: int | None = None
    mode: str = "fixed"
    local_rows: slice = dataclasses.field(default_factory=lambda: ALL)
    _last_partition: dict[int, Partition] = dataclasses.field(default_factory=dict, init=False, repr=False)

    @functools.cached_property
    def _pools(self) -> np.ndarray:
        bucket = np.searchsorted(self.edges, self.split.lengths)
        if self.seed is None or self.mode != "grouped":
            return bucket
        if self.split.labels is None:
            raise InputError("config.data.partition=grouped: the corpus has no labels; put `label<TAB>` in every line")
        # One pool for each pair of label and bucket, numbered so that p % len(edges) is the bucket.
        return bucket + len(self.edges) * np.unique(self.split.labels, return_inverse=True)[1]

    def partition(self, epoch: int) -> Partition:
        """The partition of an epoch, counted from 1; the last one made is kept."""
        # Only `repartitioned` makes a partition for each epoch; keeping one bounds the memory of a long run.
        number = epoch if self.mode == "repartitioned" else 0
        if number not in self._last_partition:
            rng = None if self.seed is None else np.random.default_rng([self.seed, PARTITION_STREAM, number])
            self._last_partition.clear()
            self._last_partition[number] = partition(self._pools, self.edges, self.batch_size, rng)
        return self._last_partition[number]

    def __len__(self) -> int:
        """Batches an epoch."""
        counts = np.unique(self._pools, return_counts=True)[1]
        return int(np.sum(-(-counts // self.batch_size)))

    def order(self, epoch: int) -> np.ndarray:
        """The batches of the epoch's partition, in the order in which they come."""
        if self.seed is None:
            return np.arange(len(self))
        # A stream for each purpose and epoch, so that a resumed run needs no state of a generator.
        return np.random.default_rng([self.seed, ORDER_STREAM, epoch]).permutation(len(self))

    def batch(self, batches: Partition, i: int | np.integer) -> Batch:
        """Batch i of a partition."""
        return assemble(self.split, batches.rows[i], batches.lengths[i], self.size, self.local_rows)

    def epoch(self, epoch: int, start: int = 0, end: int | None = None) -> Iterator[Batch]:
        """The batches of an epoch from position `start` to before `end`, made ahead in a thread."""
        import grain  # importing it takes two seconds, which no other use of a loader needs

        order, batches = self.order(epoch)[start:end], self.partition(epoch)
        if not len(order):
            return iter(())
        made = grain.MapDataset.range(len(order)).map(lambda i: self.batch(batches, order[i]))
        return iter(made.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=4)))

    def groups(self, epoch: int, start: int = 0, end: int | None = None, most: int = 1) -> Iterator[list[Batch]]:
        """The batches of an epoch, `most` together where so many of one length follow one another, else one by one.

        The device takes a group in one call (`train.steps_per_dispatch`), which is compiled for one shape.
        """
        batches, padded = self.epoch(epoch, start, end), self.partition(epoch).lengths
        lengths = [padded[i] for i in self.order(epoch)[start:end]]
        while lengths:
            count = most if lengths[:most] == lengths[:1] * most else 1
            yield list(itertools.islice(batches, count))
            del lengths[:count]

    def draw(self, epoch: int, step: int, k: int) -> Batch:
        """The k-th random training batch of a step, with replacement."""
        batches = self.partition(epoch)
        rng = np.random.default_rng([self.seed or 0, DRAW_STREAM, step, k])
        return self.batch(batches, rng.integers(len(batches.rows)))


def over_devices(split: Split, buckets: int, batch_size: int, seed: int | None = None, mode: str = "fixed") -> Loader:
    """A loader whose batches fill all devices of all processes."""
    rows = devices.rows_for(batch_size)
    return Loader(split, bucket_lengths(split.lengths, buckets), batch_size, rows, seed, mode, devices.rows_here(rows))


def padding_share(lengths: np.ndarray, edges: np.ndarray) -> float:
    """Padded slots over all slots."""
    return 1 - float(np.sum(lengths)) / float(np.sum(edges[np.searchsorted(edges, lengths)]))
