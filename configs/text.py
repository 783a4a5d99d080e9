"""Scale-VAE on a text of your own, at a size for a few ten thousand short sentences.

COMMAND: python -m scalevae_jax.train --config text --workdir runs/text --config.data.path=my.txt
DATA: one file (cut into 90/5/5), or a folder with train, valid and test: .txt, .tsv (label<TAB>sentence), .csv, .jsonl,
.gz or not, or .parquet, one sentence a line. The text is read as it stands, in subwords of byte-level BPE;
--config.data.tokenizer=words reads text whose words are separated by spaces already.
DES_STD is 0.3, below the paper's 0.7, so that the factor stays small in epochs of a few hundred steps; a larger one
lets z say more (docs/tutorial.md trains with 0.7).
"""

from scalevae_jax.config import Config, Data, MethodConfig, Network


def get_config() -> Config:
    return Config(
        data=Data(tokenizer="bpe", vocab_size=5000, max_words=100),
        model=Network(embedding=128, hidden=256, latent=16),
        method=MethodConfig(name="scale_vae", des_std=0.3, f_epo=3),
    )
