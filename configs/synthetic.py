"""Scale-VAE on the synthetic sentences of section 4.4, with the network of that section.

COMMAND: python -m scalevae_jax.train --config synthetic
DATA: drawn by the package (seed 0): 16,000 / 2,000 / 2,000 sentences, labelled with their component.
PARTITION: --config.data.partition=fixed (the paper's first mode), repartitioned or grouped (its third).
"""

from scalevae_jax.config import Config, Data, MethodConfig, Network, Train


def get_config() -> Config:
    return Config(
        data=Data(path="package:synthetic", buckets=1),
        model=Network(embedding=50, hidden=50, latent=2),
        train=Train(steps_per_dispatch=25),  # a step takes 2 ms; 500 an epoch
        method=MethodConfig(name="scale_vae", des_std=0.7, f_epo=3),
    )
