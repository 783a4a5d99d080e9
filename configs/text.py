"""Scale-VAE on a text of your own, at a size for a few ten thousand short sentences.

COMMAND: python -m scalevae_jax.train --config configs/text.py --workdir runs/text --config.data.path=DIR
DATA: train.txt, valid.txt and test.txt in DIR (or .txt.gz), one sentence a line, words separated by spaces.
"""

from scalevae_jax.config import Config, Data, MethodConfig, Network


def get_config() -> Config:
    return Config(
        data=Data(path="data/text", max_words=60),
        model=Network(embedding=128, hidden=256, latent=16),
        method=MethodConfig(name="scale_vae", des_std=0.7, f_epo=3),
    )
