"""What z holds of a sentence, on sentences and latent points whose content is known."""

import numpy as np
import pytest

from scalevae_jax.inference import content

COMMON = [f"c{i}" for i in range(content.COMMON)]
FILLER = [" ".join(COMMON)] * 3  # so that these are the 200 commonest words


def test_a_perfect_and_an_empty_reconstruction():
    given = [*FILLER, "c1 rare one", "c2 other two", "c3 third word"]
    whole = content.reconstruction(given, given)
    assert (whole["exact"], whole["token_f1"], whole["content_recall"]) == (1, 1, 1)
    assert whole["bleu"] == pytest.approx(100, abs=1)  # smoothed, since three words have no four in a row
    assert whole["content_recall_shuffled"] < 1
    nothing = content.reconstruction(given, ["x"] * len(given))
    assert nothing["exact"] == nothing["token_f1"] == nothing["content_recall"] == 0


def test_words_count_as_often_as_they_occur_and_common_ones_are_no_content():
    given, made = [*FILLER, "c1 c1 rare"], [*FILLER, "c1 c1 c1 c2"]
    found = content.reconstruction(given, made)
    assert found["token_f1"] == pytest.approx((3 + 2 * 2 / 7) / 4)
    assert (found["exact"], found["content_recall"]) == (0.75, 0)
    assert content.reconstruction(["c1"], ["c1"])["content_recall"] is None


def _sentences(rng, rows):
    """Sentences of which z holds the length, the first word and one content word; and z."""
    lengths, first, has = rng.integers(3, 9, rows), rng.integers(3, size=rows), rng.random(rows) < 0.2
    texts = [
        " ".join([f"f{f}", *rng.choice(COMMON, n), *(["dragon"] if h else [])])
        for f, n, h in zip(first, lengths, has, strict=True)
    ]
    z = np.column_stack([lengths + has, *(first == i for i in range(3)), has]) + 0.01 * rng.normal(size=(rows, 5))
    return np.float32(z), texts


def test_linear_models_find_what_z_holds_and_nothing_where_it_holds_nothing(rng):
    (z, train), (z_test, test) = _sentences(rng, 1000), _sentences(rng, 400)
    known = content.knowledge(z, train, z_test, test)
    assert known["z_length_r2"] > 0.99
    assert known["z_first_word"] > 0.99 > 0.5 > known["z_first_word_base"]
    assert content.knowledge(z, train, z_test[:1], test[:1])["z_length_r2"] is None  # one has no variance
    assert content.knowledge(z, train, z_test, ["", *test[1:]])["z_first_word"] > 0.99
    noise, noise_test = (np.float32(rng.normal(size=x.shape)) for x in (z, z_test))
    blind = content.knowledge(noise, train, noise_test, test)
    assert abs(blind["z_length_r2"]) < 0.05
    assert blind["z_first_word"] == pytest.approx(blind["z_first_word_base"], abs=0.12)
