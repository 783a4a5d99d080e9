"""Scale-VAE on single sentences of Yahoo answers: real text at a size that a CPU trains. Nothing in the paper.

COMMAND: python -m scalevae_jax.train --config yahoo_sentences --workdir runs/s --config.data.path=DIR
DATA: train.txt, valid.txt and test.txt in DIR, one sentence a line.
"""

from scalevae_jax.config import Config, Data, MethodConfig, Network


def get_config() -> Config:
    return Config(
        data=Data(path="data/yahoo_sentences", max_words=30),
        model=Network(embedding=128, hidden=256, latent=32),
        method=MethodConfig(name="scale_vae", des_std=0.7, f_epo=3),
    )
