# %% [markdown]
# # The latent space of the synthetic corpus
#
# The sentences of section 4.4 of the paper come from a known generator: z is drawn from one of four Gaussians in the
# plane, and an LSTM with random weights writes ten words from it. So the component of every sentence is known. Here a
# VAE and a Scale-VAE of the same size learn from 16,000 such sentences, and we look at what each puts into its two
# latent dimensions.
#
# It takes two to three minutes on two idle CPU cores. `python latent_space.py` runs the script it is made from;
# `make notebook` makes the notebook. With `PICTURES=FOLDER` in the environment the pictures are saved there.

# %%
import collections
import os
import tempfile
from pathlib import Path

import numpy as np
from matplotlib import pyplot
from matplotlib.colors import ListedColormap

import scalevae_jax
from scalevae_jax.comparison import pictures
from scalevae_jax.config import Config, Data, MethodConfig, Network, Train
from scalevae_jax.data import synthetic
from scalevae_jax.inference import evaluate
from scalevae_jax.reproduce import latent_space
from scalevae_jax.train import train

EPOCHS, MAX_STEPS = 10, 0  # of training; 0 steps is no limit
DRAWS = 50  # importance-weighted, a test sentence
SIDE = 16  # points a side of the map of sentences

runs = Path(tempfile.mkdtemp())
pyplot.rcParams.update(pictures.STYLE)


def keep(figure, name):
    if "PICTURES" in os.environ:
        figure.savefig(Path(os.environ["PICTURES"]) / f"{name}.png")


# %% [markdown]
# ## Two trainings
#
# `train` is what the command of that name calls; the same line resumes a run that was stopped. The two configurations
# differ in the method only. The KL weight is 1 after three epochs, and there is no dropout, so that ten epochs are
# enough.


# %%
def settings(name, **hyperparameters):
    return Config(
        data=Data(path="package:synthetic", buckets=1),
        model=Network(embedding=50, hidden=50, latent=2, dropout_words=0.0, dropout_outputs=0.0),
        method=MethodConfig(name=name, warm_up=3.0, **hyperparameters),
        train=Train(max_epochs=EPOCHS, max_steps=MAX_STEPS, steps_per_dispatch=25),
    )


train(settings("vae"), runs / "vae")
train(settings("scale_vae", des_std=0.9), runs / "scale_vae")

# %% [markdown]
# ## What z holds
#
# KL and mutual information (`mi`) are nats a sentence, over the 2,000 test sentences; `au` counts active dimensions.
# `purity` is the share of sentences whose component is that of most of their ten nearest neighbours among the posterior
# means, however small the means are; chance is 0.25. Scale-VAE's decoder reads the means times `factor`, and its KL is
# that of the posterior without the factor.

# %%
models = {name: scalevae_jax.load(runs / name) for name in ("vae", "scale_vae")}
measured = {
    name: evaluate.evaluate(model.run, evaluate.EvaluationRequest(iw_samples=DRAWS)) for name, model in models.items()
}
spaces = {name: latent_space.measure(model, "test") for name, model in models.items()}

for name in models:
    result, (_, numbers) = measured[name].result, spaces[name]
    factor = " ".join(f"{f:.2f}" for f in numbers["factor"])
    print(f"{name:9}  kl {result['kl']:.3f}  mi {result['mi']:.3f}  au {result['au']}  factor {factor}", end="  ")
    print(f"purity {numbers['purity']:.2f}")

# %%
figure, axes = pyplot.subplots(1, 2, figsize=(6.4, 3.0), sharey=True, layout="constrained")
for ax, name in zip(axes, models, strict=True):
    bars = ax.bar(["1", "2"], measured[name].result["kl_dims"], width=0.5)
    ax.bar_label(bars, fmt="%.3f")
    ax.set(title=name, xlabel="latent dimension")
axes[0].set_ylabel("KL(q || N(0, 1)), nats a sentence")
keep(figure, "kl")

# %% [markdown]
# ## Where the sentences lie
#
# On the left is the generator's own z of each test sentence, then the means f mu that each decoder reads. The colour is
# the component, which neither model was given; the circle is one standard deviation of the prior. The means of the VAE
# are one point. Those of Scale-VAE lie apart, mostly by component.

# %%
drawn = synthetic.splits()["test"]
planes = {"the generator's z": drawn.z}
planes |= {f"{name}, f mu": arrays["mean"] * arrays["factor"] for name, (arrays, _) in spaces.items()}
priors = [None, *(model.run.factor for model in models.values())]

figure, axes = pyplot.subplots(1, 3, figsize=(9.0, 3.4), layout="constrained")
for ax, (title, points), prior in zip(axes, planes.items(), priors, strict=True):
    order = np.random.default_rng(0).permutation(len(points))  # so that no component hides another
    ax.scatter(*points[order].T, s=4, c=[pictures.COLOURS[i] for i in drawn.component[order]], linewidths=0)
    if prior is not None:
        angle = np.linspace(0, 2 * np.pi, 100)
        ax.plot(prior[0] * np.cos(angle), prior[1] * np.sin(angle), color="black", linewidth=0.8)
    ax.set(title=title, xlabel="dimension 1")
    ax.set_aspect("equal", adjustable="datalim")
axes[0].set_ylabel("dimension 2")
keep(figure, "means")

# %% [markdown]
# ## What the decoder says there
#
# Both decoders write their likeliest sentence at points on a grid, two standard deviations of the prior to each side.
# The five most frequent sentences of each have a colour; all others are grey.

# %%
figure, axes = pyplot.subplots(1, 2, figsize=(6.4, 3.5), layout="constrained")
for ax, (name, model) in zip(axes, models.items(), strict=True):
    across, along = (np.linspace(-2 * f, 2 * f, SIDE) for f in np.asarray(model.run.factor))
    sentences = model.decode(np.stack(np.meshgrid(across, along), axis=-1).reshape(-1, 2), max_words=10)
    counts = collections.Counter(sentences)
    rank = {sentence: min(i, 5) for i, (sentence, _) in enumerate(counts.most_common())}
    colours = ListedColormap([*pictures.COLOURS[:5], "#BBBBBB"])
    shown = np.reshape([rank[sentence] for sentence in sentences], (SIDE, SIDE))
    ax.pcolormesh(across, along, shown, cmap=colours, vmin=-0.5, vmax=5.5)
    ax.set(title=f"{name}, different sentences: {len(counts)}", xlabel="dimension 1 of z", aspect="equal")
    print(f"{name}, {SIDE * SIDE} points, different sentences: {len(counts)}, the most frequent:")
    for sentence, count in counts.most_common(3):
        print(f"  {count:3} x {sentence}")
axes[0].set_ylabel("dimension 2 of z")
keep(figure, "sentences")

# %% [markdown]
# ## Which number ranks them
#
# Four estimates of -log p(x), nats a sentence, on the test split. `nll`, `nll_unit_prior` and `nll_fitted_prior` are
# bounds, each for the decoder with another prior. `nll_paper` weighs by one posterior what it decodes from another; it
# is not a bound unless the factor is 1, and lies below all bounds of Scale-VAE. The entropy of this corpus is known:
# `studies/synthetic_entropy.py` computes the generator's own -log p(x), which no bound can go below.

# %%
ESTIMATES = ("nll", "nll_unit_prior", "nll_fitted_prior", "nll_paper")
for name in models:
    for estimate in ESTIMATES:
        print(f"{name:9} {estimate:17} {measured[name].result[estimate]:6.2f}")
