"""Scale-VAE on a text of your own, at a size for ten thousand to a few hundred thousand short sentences.

COMMAND: python -m scalevae_jax.train --config text --workdir runs/text --config.data.path=my.txt
DATA: one file (cut into 90/5/5), or a folder with train, valid and test: .txt, .tsv (label<TAB>sentence), .csv, .jsonl,
.gz or not, or .parquet, one sentence a line. The text is read as it stands, in subwords of byte-level BPE;
--config.data.tokenizer=words reads text whose words are separated by spaces already.
TIME: on one core 10 seconds an epoch for 16,000 captions, 50 for 100,000 short Yelp sentences.
CHOICE: on three corpora, in about ten minutes of one core, Adam kept z in use in every run; SGD at rate 1.0 reached
tighter bounds, and in one run the factor ran away (docs/running.md). All methods begin with initial values of one kind,
so that they can be compared.
"""

from scalevae_jax.config import Config, Data, MethodConfig, Network, Optim, Train


def get_config() -> Config:
    return Config(
        data=Data(tokenizer="bpe", vocab_size=5000, max_words=100),
        model=Network(embedding=64, hidden=128, latent=16, encoder_init="torch"),
        method=MethodConfig(name="scale_vae", des_std=0.7, f_epo=1, warm_up=4.0),
        optim=Optim(name="adam", learning_rate=0.002, schedule="cosine"),
        train=Train(max_epochs=30),
    )
