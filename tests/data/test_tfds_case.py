"""TFDS's own test case for a builder. It needs TensorFlow, which nothing else here does, so it is skipped without it:
`pip install tensorflow dill` in an environment of its own, then `pytest tests/data/test_tfds_case.py`."""

from unittest import mock

import pytest

pytest.importorskip("tensorflow")
pytest.importorskip("dill")
import tensorflow_datasets as tfds

from scalevae_jax.data import builder, source


class Case(tfds.testing.DatasetBuilderTestCase):
    """Of one builder: three files of three sentences, prepared and read back."""

    __test__ = False
    SKIP_CHECKSUMS = True
    LABELLED = True

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        where = builder.Path(cls.enterClassContext(tfds.testing.tmp_dir()))
        for split, words in zip(source.SPLITS, ("a b", "c", "d e f"), strict=True):
            label = "1\t" if cls.LABELLED else ""
            (where / f"{split}.txt").write_text(f"{label}{words}\n" * 3)
        files = {split: where / f"{split}.txt" for split in source.SPLITS}
        found = source.Source(cls.DATASET_CLASS.name, where, files)
        cls.EXAMPLE_DIR = where
        cls.BUILDER_CONFIG_NAMES_TO_TEST = [builder.SourceConfig(name=found.digest()[:16], source=found)]
        if cls.DATASET_CLASS.ABOUT.archive:  # the case gives these files for the downloaded ones
            cls.enterClassContext(mock.patch.object(builder.urllib.request, "urlopen"))
            cls.BUILDER_CONFIG_NAMES_TO_TEST.append(builder.SourceConfig(name="downloaded"))


def case(of: type, labelled: bool) -> type:
    """The test case of a builder; its records are blocks of sentences, one a split here."""
    splits = dict.fromkeys(source.SPLITS, 1)
    return type(
        f"Test{of.__name__}", (Case,), {"__test__": True, "DATASET_CLASS": of, "SPLITS": splits, "LABELLED": labelled}
    )


TestText = case(builder.Text, False)
TestYahoo = case(builder.Yahoo, False)
TestYelp = case(builder.Yelp, True)
TestYelpSentiment = case(builder.YelpSentiment, True)
