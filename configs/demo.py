"""Scale-VAE on the embedded captions: what `make demo` runs.

COMMAND: python -m scalevae_jax.train --config demo
TIME: 3 to 8 minutes on two CPU cores.
EXPECTED on the test split (2,000 sentences, 50 draws, seed 0; nats a sentence): rec 33.4, kl 2.6, mi 4.1 of 7.6, 16 of
16 units active, factors of 1.4 to 1.9; nll 37.9, nll_unit_prior 37.6, nll_fitted_prior 37.3, nll_paper 35.3. z knows
the length (R^2 0.93) and the first word (94%, 45% by chance) and hardly another word: content_recall is 0.001.
ADAM, with a rate that falls to 0, since at the paper's SGD with rate 1.0 rounding differences grow in training: that
ended with nll 40.4 and 45.2 on two processors, and mi 3.3 and 1.9.
"""

from scalevae_jax.config import Config, Data, Eval, MethodConfig, Network, Optim, Train


def get_config() -> Config:
    return Config(
        data=Data(path="package:snli", vocab_size=5000, buckets=5),
        model=Network(embedding=128, hidden=192, latent=16),
        method=MethodConfig(name="scale_vae", des_std=0.7, f_epo=1, warm_up=8.0),
        optim=Optim(name="adam", learning_rate=0.002, schedule="cosine"),
        train=Train(max_epochs=10),
        eval=Eval(iw_samples=50, at_end=True),
    )
