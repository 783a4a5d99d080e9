"""Buckets against brute force; an epoch as a pure function of (seed, epoch, position)."""

import dataclasses
from itertools import combinations

import chex
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scalevae_jax.core.types import InputError
from scalevae_jax.data import loader
from scalevae_jax.data.config import PARTITIONS
from scalevae_jax.data.corpus import Split
from scalevae_jax.data.loader import Loader

ROWS, BATCH, SIZE = 23, 4, 6


@pytest.fixture
def split(rng):
    """Different sentences of 3 to 9 tokens."""
    rows = [[1, 10 + i, *rng.integers(4, 9, rng.integers(0, 7)).tolist(), 2] for i in range(ROWS)]
    return dataclasses.replace(Split.of(rows), labels=rng.integers(-1, 2, ROWS))


def _loader(split, seed: int | None = 5, mode="fixed", buckets=3):
    return Loader(split, loader.bucket_lengths(split.lengths, buckets), BATCH, SIZE, seed, mode)


def _rows(batches):
    """The real rows of each batch."""
    return [tuple(batch.row[batch.weight > 0]) for batch in batches]


def _same(some, others):
    for pair in zip(some, others, strict=True):
        chex.assert_trees_all_equal(*pair)


def _slots(lengths, edges):
    return sum(min(edge for edge in edges if edge >= length) for length in lengths)


@given(st.lists(st.integers(2, 12), min_size=1, max_size=30), st.integers(1, 5))
def test_buckets_waste_no_more_than_any_other_choice_of_edges(lengths, count):
    edges = loader.bucket_lengths(np.array(lengths), count)
    assert len(edges) <= count
    assert list(edges) == sorted(set(edges))
    assert edges[-1] == max(lengths)
    values = sorted(set(lengths))
    choices = [(*subset, values[-1]) for size in range(count) for subset in combinations(values[:-1], size)]
    assert _slots(lengths, edges) == min(_slots(lengths, choice) for choice in choices)


@given(st.lists(st.integers(2, 12), min_size=1, max_size=30), st.integers(1, 5))
def test_padding_share_counts_the_slots_without_a_token(lengths, count):
    edges = loader.bucket_lengths(np.array(lengths), count)
    expected = 1 - sum(lengths) / _slots(lengths, edges)
    np.testing.assert_allclose(loader.padding_share(np.array(lengths), edges), expected, atol=1e-12)


@pytest.mark.parametrize("seed", [5, None])
@pytest.mark.parametrize("mode", PARTITIONS)
def test_every_row_comes_exactly_once_an_epoch(split, seed, mode):
    data = _loader(split, seed, mode)
    for epoch in (1, 2):
        batches = list(data.epoch(epoch))
        assert len(batches) == len(data) == len(data.partition(epoch).rows)
        assert sorted(row for rows in _rows(batches) for row in rows) == list(range(ROWS))


def test_a_batch_holds_rows_of_one_bucket_and_is_filled_up_with_weight_zero(split):
    data = _loader(split)
    filled = 0
    for batch in data.epoch(1):
        assert batch.tokens.dtype == batch.lengths.dtype == batch.row.dtype == np.int32
        assert batch.weight.dtype == np.float32
        real = int(batch.weight.sum())
        (bucket,) = set(np.searchsorted(data.edges, batch.lengths[:real]))
        assert batch.tokens.shape == (SIZE, data.edges[bucket])
        assert 0 < real <= BATCH
        np.testing.assert_array_equal(batch.weight, np.arange(SIZE) < real)
        assert np.all(batch.lengths >= 1)
        filled += real < BATCH
        for tokens, length, row in zip(batch.tokens[:real], batch.lengths, batch.row, strict=False):
            np.testing.assert_array_equal(tokens[:length], split[row])
            assert np.all(tokens[length:] == 0)
        assert np.all(batch.mask[real:] == 0)
    assert filled


@pytest.mark.parametrize("mode", PARTITIONS)
def test_an_epoch_from_a_position_is_the_tail_of_the_epoch(split, mode):
    data = _loader(split, mode=mode)
    whole = list(data.epoch(3))
    for start in (0, 1, len(data) - 1, len(data), len(data) + 5):
        _same(data.epoch(3, start), whole[start:])


@pytest.mark.parametrize(("start", "end", "most"), [(0, None, 2), (1, 5, 2), (0, None, 1), (2, 2, 3)])
def test_groups_are_the_batches_of_the_epoch_several_where_they_have_one_length(split, start, end, most):
    data = _loader(split, buckets=2)
    groups = list(data.groups(2, start, end, most))
    _same([batch for group in groups for batch in group], list(data.epoch(2))[start:end])
    assert {len(group) for group in groups} <= {1, most}
    for group in groups:
        assert len({batch.tokens.shape for batch in group}) == 1
    if (start, most) == (0, 2):
        assert {len(group) for group in groups} == {1, 2}


def test_same_seed_same_batches_and_another_seed_others(split):
    _same(_loader(split).epoch(2), _loader(split).epoch(2))
    assert {frozenset(rows) for rows in _rows(_loader(split).epoch(2))} != {
        frozenset(rows) for rows in _rows(_loader(split, seed=6).epoch(2))
    }


def test_order_differs_between_epochs_and_the_partition_as_the_mode_says(split):
    for mode, alike in (("fixed", True), ("repartitioned", False), ("grouped", True)):
        data = _loader(split, mode=mode)
        first, second = _rows(data.epoch(1)), _rows(data.epoch(2))
        assert first != second
        assert (set(first) == set(second)) is alike
    lengths = [batch.tokens.shape[1] for batch in _loader(split).epoch(1)]
    assert lengths != sorted(lengths)


def test_without_a_seed_the_order_is_that_of_the_split(split):
    data = _loader(split, seed=None)
    rows = _rows(data.epoch(1))
    assert rows == _rows(data.epoch(2))
    buckets = np.searchsorted(data.edges, split.lengths)
    for bucket in range(len(data.edges)):
        members = [row for batch in rows for row in batch if buckets[row] == bucket]
        assert members == list(np.flatnonzero(buckets == bucket))
    assert _rows(_loader(split, seed=None, buckets=1).epoch(1))[0] == (0, 1, 2, 3)


def test_a_draw_depends_on_seed_step_and_number_only(split):
    data = _loader(split)
    _same([data.draw(1, 7, 2)], [_loader(split).draw(1, 7, 2)])
    batches = set(_rows(data.epoch(1)))

    def draws(data):
        return [_rows([data.draw(1, step, k)])[0] for step in range(10) for k in range(10)]

    drawn = draws(data)
    assert set(drawn) == batches
    assert drawn[:10] != drawn[10:20]
    assert drawn != draws(_loader(split, seed=6))


def test_a_batch_of_a_group_has_one_label_and_one_bucket(split):
    data = _loader(split, mode="grouped")
    rows = [list(batch) for batch in _rows(data.epoch(1))]
    assert all(len(set(split.labels[batch])) == 1 for batch in rows)
    assert len(rows) == len(data) > len(_loader(split))
    unlabelled = dataclasses.replace(split, labels=None)
    with pytest.raises(InputError, match=r"data\.partition=grouped: the corpus has no labels"):
        _loader(unlabelled, mode="grouped").partition(1)
    assert len(_loader(unlabelled, seed=None, mode="grouped").partition(1).rows) > 0


def test_without_buckets_the_rows_of_a_batch_have_equal_lengths(split):
    data = _loader(split, buckets=0)
    assert loader.padding_share(split.lengths, data.edges) == 0
    for batch in data.epoch(1):
        assert set(batch.lengths[batch.weight > 0]) == {batch.tokens.shape[1]}


@pytest.mark.parametrize("seed", [None, 5])
def test_processes_that_read_their_own_rows_together_have_the_whole_batch(seed, split):
    shares = [dataclasses.replace(_loader(split, seed), local_rows=slice(i, i + 3)) for i in (0, 3)]
    for whole, *parts in zip(*(each.epoch(1) for each in (_loader(split, seed), *shares)), strict=True):
        np.testing.assert_array_equal(parts[0].tokens[:3], whole.tokens[:3])
        np.testing.assert_array_equal(parts[1].tokens[3:], whole.tokens[3:])
        assert not parts[0].tokens[3:].any()
        for part in parts:
            _same(part[1:], whole[1:])
