"""Scale-VAE, tiny, three epochs of embedded text: shows that everything works, and nothing else.

COMMAND: python -m scalevae_jax.train --config smoke
TIME: under half a minute on two CPU cores, compilation included.
EXPECTED: valid rec 36.8, 33.6, 32.4 nats a sentence after epochs 1, 2, 3; the factor stays between 3 and 7.
"""

from scalevae_jax.config import Config, Data, Eval, MethodConfig, Network, Train


def get_config() -> Config:
    return Config(
        data=Data(path="package:snli", vocab_size=500, max_words=12, buckets=2),
        model=Network(embedding=16, hidden=16, latent=4),
        method=MethodConfig(name="scale_vae", des_std=0.7, f_epo=3),
        train=Train(max_epochs=3, batch_size=128),
        eval=Eval(batch_size=128, iw_samples=5),
    )
