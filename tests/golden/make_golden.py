"""Golden values from PyTorch, a second implementation of the network.

Run with a Python that has torch: `python tests/golden/make_golden.py` writes model.npz here.
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


def write() -> None:
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
    values = parameters | gradients | data | {"mu": mu, "logvar": logvar, "nll": nll, "kl": kl}
    np.savez_compressed(HERE / "model.npz", **{key: value.detach().numpy() for key, value in values.items()})


if __name__ == "__main__":
    write()
