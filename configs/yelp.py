"""Scale-VAE on Yelp reviews, the sizes and the rule of section 4.1 (Table 1, last row but one).

COMMAND: python -m scalevae_jax.train --config yelp --workdir runs/yelp --config.data.path=DIR
DATA: the corpus of Yang et al. 2017 (100,000 / 10,000 / 10,000 reviews): train, valid and test in DIR or
data/yelp. The package does not contain it.
TIME: meant for a GPU or TPU.
PAPER: NLL 349.9 (how it is estimated is not stated; docs/metrics.md), KL 6.7, MI 9.2, AU 32.
"""

from scalevae_jax.config import Config, Data, MethodConfig


def get_config() -> Config:
    return Config(data=Data(name="yelp"), method=MethodConfig(name="scale_vae", des_std=1.1, f_epo=7))
