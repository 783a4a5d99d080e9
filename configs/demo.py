"""Scale-VAE on the embedded captions: what `make demo` runs.

COMMAND: python -m scalevae_jax.train --config demo
TIME: 2 to 7 minutes on two CPU cores.
EXPECTED on the test split (2,000 sentences, 50 draws, seed 0; nats a sentence): rec 34.5, kl 1.3, mi 3.2 of 7.6, 16 of
16 units active, factors of 1.2 to 3.3; nll 40.5, nll_unit_prior 37.1, nll_fitted_prior 37.0, nll_paper 34.8. Another
machine rounds otherwise, and ten epochs make a nat or two of it, as does seed 1 (nll 42.1, mi 2.4). With
encoder_init=paper (uniform in 0.01) they make more: from one seed the factors came out at 1.6 to 2.4 on one processor
and at 4.9 to 25.8 on another (nll 39.0 and 57.2).
An LSTM-LM trained alike (--config.method.name=lstm_lm): nll 36.01. By `nll`, a bound, it is the better model of the
captions; what Scale-VAE has over it is a latent variable that the decoder uses.
"""

from scalevae_jax.config import Config, Data, Eval, MethodConfig, Network, Train


def get_config() -> Config:
    return Config(
        data=Data(path="package:snli", vocab_size=5000, buckets=5),
        model=Network(embedding=128, hidden=192, latent=16),
        method=MethodConfig(name="scale_vae", des_std=0.7, f_epo=3, warm_up=8.0),
        train=Train(max_epochs=10),
        eval=Eval(iw_samples=50, at_end=True),
    )
