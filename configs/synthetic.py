"""Scale-VAE on the synthetic sentences of section 4.4, with the network of that section.

COMMAND: python -m scalevae_jax.train --config configs/synthetic.py --workdir runs/synthetic --config.data.path=DIR
DATA: train.txt, valid.txt and test.txt in DIR, `component<TAB>sentence` a line; the generator is not part of the
package yet.
"""

from scalevae_jax.config import Config, Data, MethodConfig, Network


def get_config() -> Config:
    return Config(
        data=Data(path="data/synthetic", buckets=1),
        model=Network(embedding=50, hidden=50, latent=2),
        method=MethodConfig(name="scale_vae", des_std=0.7, f_epo=3),
    )
