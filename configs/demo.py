"""Scale-VAE on the embedded captions: what `make demo` runs."""

from scalevae_jax.config import Config, Data, Eval, MethodConfig, Network, Train


def get_config() -> Config:
    return Config(
        data=Data(path="package:snli", vocab_size=5000, buckets=5),
        model=Network(embedding=128, hidden=192, latent=16),
        method=MethodConfig(name="scale_vae", des_std=0.7, f_epo=3, warm_up=8.0),
        train=Train(max_epochs=10),
        eval=Eval(iw_samples=50, at_end=True),
    )
