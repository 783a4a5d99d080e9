"""Scale-VAE on the short Yelp sentences with sentiment labels (Tables 4 and 6); the labels are not trained on.

COMMAND: python -m scalevae_jax.train --config yelp_sentiment --workdir runs/ys --config.data.path=DIR
DATA: train, valid and test in DIR or data/yelp_sentiment, `label<TAB>sentence` a line (Shen et al. 2017).
The package does not contain it.
PAPER: section 4.3 gives no size of the network; this is that of earlier work on this corpus.
"""

from scalevae_jax.config import Config, Data, MethodConfig, Network


def get_config() -> Config:
    return Config(
        data=Data(name="yelp_sentiment"),
        model=Network(embedding=128, hidden=512, latent=32),
        method=MethodConfig(name="scale_vae", des_std=0.7, f_epo=3),
    )
