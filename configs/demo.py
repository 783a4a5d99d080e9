"""Scale-VAE on the embedded captions: what `make demo` runs.

COMMAND: python -m scalevae_jax.train --config demo
TIME: 4 to 7 minutes on two CPU cores.
EXPECTED on the test split (2,000 sentences, 50 draws, seed 0; nats a sentence): rec 33.99, kl 1.55, mi 3.22 of 7.60,
16 of 16 units active, largest factor 2.36; nll 39.04, nll_unit_prior 36.94, nll_fitted_prior 36.90, nll_paper 34.63.
(Another machine rounds otherwise, and ten epochs make of it: rec 33.92, nll 38.68.) With encoder_init=torch, the
method's default: rec 35.98, kl 1.01, mi 2.17, nll 41.67.
An LSTM-LM trained alike (--config.method.name=lstm_lm): nll 36.01. By `nll`, a bound, it is the better model of the
captions; what Scale-VAE has over it is a latent variable that the decoder uses.
"""

from scalevae_jax.config import Config, Data, Eval, MethodConfig, Network, Train


def get_config() -> Config:
    return Config(
        data=Data(path="package:snli", vocab_size=5000, buckets=5),
        model=Network(embedding=128, hidden=192, latent=16),
        method=MethodConfig(name="scale_vae", des_std=0.7, f_epo=3, encoder_init="paper", warm_up=8.0),
        train=Train(max_epochs=10),
        eval=Eval(iw_samples=50, at_end=True),
    )
