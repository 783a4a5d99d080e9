"""Scale-VAE on a text of your own, at a size for a few ten thousand short sentences.

COMMAND: python -m scalevae_jax.train --config text --workdir runs/text --config.data.path=my.txt
DATA: one file (cut into 90/5/5), or a folder with train, valid and test: .txt, .tsv (label<TAB>sentence) or .jsonl, .gz
or not, one sentence a line. Words are separated by spaces; --config.data.raw=True cuts text that is not tokenised yet.
DES_STD is 0.3, below the paper's 0.7, so that the factor stays small in epochs of a few hundred steps; a larger one
lets z say more (docs/tutorial.md trains with 0.7).
"""

from scalevae_jax.config import Config, Data, MethodConfig, Network


def get_config() -> Config:
    return Config(
        data=Data(max_words=60),
        model=Network(embedding=128, hidden=256, latent=16),
        method=MethodConfig(name="scale_vae", des_std=0.3, f_epo=3),
    )
