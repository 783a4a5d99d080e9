"""The PyTorch counterpart: the network of section 4.1 as the reference line of code runs it, written for these
benchmarks. Its modules are PyTorch's own, its loops those a user of that code would run."""

import math

import numpy as np
import torch
from torch import nn


class Decoder(nn.Module):
    """p(x|z): z beside the word at every step, and in the first state."""

    def __init__(self, vocabulary: int, embedding: int, hidden: int, latent: int):
        super().__init__()
        self.words = nn.Embedding(vocabulary, embedding)
        self.lstm = nn.LSTM(embedding + latent, hidden, batch_first=True)
        self.state = nn.Linear(latent, hidden, bias=False)
        self.output = nn.Linear(hidden, vocabulary, bias=False)

    def load(self, weights: dict[str, np.ndarray]) -> None:
        """Take the parameters of the package's decoder."""
        given = {name: torch.from_numpy(np.array(x)) for name, x in weights.items()}
        with torch.no_grad():
            self.words.weight.copy_(given["embedding"])
            self.lstm.weight_ih_l0.copy_(torch.cat([given["input"], given["latent_input"]]).T)
            self.lstm.weight_hh_l0.copy_(given["recurrent"].T)
            self.lstm.bias_ih_l0.copy_(given["input_bias"])
            self.lstm.bias_hh_l0.copy_(given["recurrent_bias"])
            self.state.weight.copy_(given["latent_state"].T)
            self.output.weight.copy_(given["output"].T)

    def log_likelihood(self, tokens: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        """log p(x|z) of one sentence [1, time] for each z [samples, latent]."""
        samples, steps = len(z), tokens.shape[1] - 1
        words = self.words(tokens[:, :-1]).expand(samples, -1, -1)
        inputs = torch.cat([words, z[:, None].expand(-1, steps, -1)], dim=-1)
        c = self.state(z)[None]
        features, _ = self.lstm(inputs, (torch.tanh(c), c))
        logits = self.output(features)
        targets = tokens[:, 1:].expand(samples, -1)
        nll = nn.functional.cross_entropy(logits.reshape(-1, logits.shape[-1]), targets.reshape(-1), reduction="none")
        return -nll.view(samples, -1).sum(-1)


def nll_iw(
    decoder: Decoder, tokens: torch.Tensor, mean: torch.Tensor, logvar: torch.Tensor, samples: int, chunk: int
) -> torch.Tensor:
    """-log p(x) of one sentence [1, time] by importance weights, `chunk` draws at a time."""
    weights = []
    for _ in range(0, samples, chunk):
        noise = torch.randn(chunk, len(mean))
        z = mean + torch.exp(0.5 * logvar) * noise
        log_prior = -0.5 * (z**2 + math.log(2 * math.pi)).sum(-1)
        log_q = -0.5 * (noise**2 + logvar + math.log(2 * math.pi)).sum(-1)
        weights.append(decoder.log_likelihood(tokens, z) + log_prior - log_q)
    return math.log(samples) - torch.logsumexp(torch.cat(weights), dim=0)
