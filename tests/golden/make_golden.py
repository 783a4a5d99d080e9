"""Golden values from PyTorch, a second implementation of the LSTM and of the whole network.

Run with a Python that has torch: `python tests/golden/make_golden.py` writes lstm.npz and model.npz here.
Everything is float64, but parameters and inputs are exact in float32: a float32 test starts from the same.
"""

from pathlib import Path

import numpy as np
import torch
from torch import nn

HERE = Path(__file__).parent


def _round(module: nn.Module, limit: float, generator: torch.Generator) -> None:
    """Uniform parameters in +-limit, large enough that the gates leave their linear range."""
    for parameter in module.parameters():
        values = (2 * torch.rand(parameter.shape, generator=generator) - 1) * limit
        parameter.data = values.double()


def _randn(generator: torch.Generator, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=generator).double()


def _save(name: str, values: dict[str, torch.Tensor]) -> None:
    np.savez_compressed(HERE / name, **{key: value.detach().numpy() for key, value in values.items()})


def lstm() -> None:
    """An LSTM and a linear layer, every output and the gradients of a random linear functional of both."""
    generator = torch.Generator().manual_seed(1)
    batch, time, features, hidden, out = 3, 6, 4, 5, 7
    layer, linear = nn.LSTM(features, hidden).double(), nn.Linear(hidden, out).double()
    _round(layer, 1.0, generator)
    _round(linear, 1.0, generator)
    inputs = {
        "x": _randn(generator, time, batch, features),
        "h0": _randn(generator, batch, hidden),
        "c0": _randn(generator, batch, hidden),
    }
    for value in inputs.values():
        value.requires_grad_()
    hs, _ = layer(inputs["x"], (inputs["h0"][None], inputs["c0"][None]))
    y = linear(hs)
    of_hs, of_y = _randn(generator, *hs.shape), _randn(generator, *y.shape)
    ((hs * of_hs).sum() + (y * of_y).sum()).backward()
    parameters = dict(layer.named_parameters()) | {f"linear_{k}": v for k, v in linear.named_parameters()}
    leaves = inputs | parameters
    gradients = {f"grad_{key}": value.grad for key, value in leaves.items()}
    _save("lstm.npz", leaves | gradients | {"hs": hs, "y": y, "of_hs": of_hs, "of_y": of_y})


class Network(nn.Module):
    """The encoder and the decoder of section 4.1, for one sentence at a time, so without padding."""

    def __init__(self, vocabulary: int, embedding: int, hidden: int, latent: int):
        super().__init__()
        self.encoder_embedding = nn.Embedding(vocabulary, embedding)
        self.encoder_lstm = nn.LSTM(embedding, hidden)
        self.posterior = nn.Linear(hidden, 2 * latent, bias=False)
        self.decoder_embedding = nn.Embedding(vocabulary, embedding)
        self.decoder_lstm = nn.LSTM(embedding + latent, hidden)
        self.state = nn.Linear(latent, hidden, bias=False)
        self.output = nn.Linear(hidden, vocabulary, bias=False)

    def encode(self, sentence: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """mu and log variance of a sentence."""
        _, (last, _) = self.encoder_lstm(self.encoder_embedding(sentence))
        mu, logvar = self.posterior(last[0]).chunk(2)
        return mu, logvar

    def nll(self, sentence: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        """-log p(x|z), the end symbol counted."""
        words = self.decoder_embedding(sentence[:-1])
        inputs = torch.cat([words, z.expand(len(words), -1)], dim=-1)
        c0 = self.state(z)[None]
        hs, _ = self.decoder_lstm(inputs, (torch.tanh(c0), c0))
        return nn.functional.cross_entropy(self.output(hs), sentence[1:], reduction="sum")


def model() -> None:
    """Ragged sentences: posteriors, nll, and the gradients of the summed negative ELBO in all parameters."""
    generator = torch.Generator().manual_seed(2)
    vocabulary, embedding, hidden, latent = 11, 4, 6, 3
    network = Network(vocabulary, embedding, hidden, latent).double()
    _round(network, 0.7, generator)
    lengths = [7, 2, 5, 4]
    tokens = torch.zeros(len(lengths), max(lengths), dtype=torch.long)
    for row, length in zip(tokens, lengths, strict=True):
        row[0], row[length - 1] = 1, 2
        row[1 : length - 1] = torch.randint(3, vocabulary, (length - 2,), generator=generator)
    noise = _randn(generator, len(lengths), latent)
    rows = []
    for row, length, eps in zip(tokens, lengths, noise, strict=True):
        mu, logvar = network.encode(row[:length])
        nll = network.nll(row[:length], mu + torch.exp(0.5 * logvar) * eps)
        rows.append((mu, logvar, nll, 0.5 * torch.sum(mu**2 + logvar.exp() - 1 - logvar)))
    mu, logvar, nll, kl = (torch.stack(column) for column in zip(*rows, strict=True))
    (nll + kl).sum().backward()
    parameters = dict(network.named_parameters())
    gradients = {f"grad_{key}": value.grad for key, value in parameters.items()}
    data = {"tokens": tokens, "lengths": torch.tensor(lengths), "noise": noise}
    _save("model.npz", parameters | gradients | data | {"mu": mu, "logvar": logvar, "nll": nll, "kl": kl})


if __name__ == "__main__":
    lstm()
    model()
