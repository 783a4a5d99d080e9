"""The PyTorch counterpart: the network of section 4.1 as the reference line of code runs it, written for these
benchmarks. Its modules are PyTorch's own, its loops those a user of that code would run."""

import math

import jax
import numpy as np
import torch
from torch import nn

PRODUCTS = ("tf32", "float32")


def device() -> str:
    """Where JAX is."""
    return "cuda" if jax.default_backend() == "gpu" else "cpu"


def alike(products: str = "tf32") -> None:
    """Float32 products of the same kind in both libraries. On a GPU JAX's own choice is tf32; PyTorch's is tf32 in its
    LSTM and float32 elsewhere. A CPU knows float32 alone."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = products == "tf32"
    if products == "float32":
        jax.config.update("jax_default_matmul_precision", "highest")


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
        noise = torch.randn(chunk, len(mean), device=mean.device)
        z = mean + torch.exp(0.5 * logvar) * noise
        log_prior = -0.5 * (z**2 + math.log(2 * math.pi)).sum(-1)
        log_q = -0.5 * (noise**2 + logvar + math.log(2 * math.pi)).sum(-1)
        weights.append(decoder.log_likelihood(tokens, z) + log_prior - log_q)
    return math.log(samples) - torch.logsumexp(torch.cat(weights), dim=0)


class Encoder(nn.Module):
    """q(z|x): the last state of an LSTM, and one linear map."""

    def __init__(self, vocabulary: int, embedding: int, hidden: int, latent: int):
        super().__init__()
        self.words = nn.Embedding(vocabulary, embedding)
        self.lstm = nn.LSTM(embedding, hidden, batch_first=True)
        self.posterior = nn.Linear(hidden, 2 * latent, bias=False)

    def forward(self, tokens: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Mean and log variance of sentences of one length [batch, time]."""
        _, (h, _) = self.lstm(self.words(tokens))
        return self.posterior(h[0]).chunk(2, dim=-1)


class Vae(nn.Module):
    """Encoder, decoder, and a training step as the reference line of code takes it."""

    def __init__(self, vocabulary: int, embedding: int, hidden: int, latent: int):
        super().__init__()
        self.encoder = Encoder(vocabulary, embedding, hidden, latent)
        self.decoder = Decoder(vocabulary, embedding, hidden, latent)
        self.optimizers = [torch.optim.SGD(part.parameters(), lr=1.0) for part in (self.encoder, self.decoder)]
        for name, parameter in self.named_parameters():
            nn.init.uniform_(parameter, *((-0.1, 0.1) if "words" in name else (-0.01, 0.01)))

    def losses(self, tokens: torch.Tensor, kl_weight: float) -> torch.Tensor:
        """rec + kl_weight KL of each sentence [batch, time], one draw, dropout 0.5 twice."""
        mean, logvar = self.encoder(tokens)
        z = mean + torch.exp(0.5 * logvar) * torch.randn_like(mean)
        decoder = self.decoder
        words = nn.functional.dropout(decoder.words(tokens[:, :-1]), 0.5, self.training)
        inputs = torch.cat([words, z[:, None].expand(-1, words.shape[1], -1)], dim=-1)
        c = decoder.state(z)[None]
        features, _ = decoder.lstm(inputs, (torch.tanh(c), c))
        logits = decoder.output(nn.functional.dropout(features, 0.5, self.training))
        targets = tokens[:, 1:].reshape(-1)
        nll = nn.functional.cross_entropy(logits.reshape(-1, logits.shape[-1]), targets, reduction="none")
        kl = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).sum(-1)
        return nll.view(len(tokens), -1).sum(-1) + kl_weight * kl

    def step(self, tokens: torch.Tensor, kl_weight: float = 1.0, bfloat16: bool = False) -> float:
        """One training step, by PyTorch's autocast where `bfloat16`; the loss."""
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        with torch.autocast(tokens.device.type, torch.bfloat16, enabled=bfloat16):
            loss = self.losses(tokens, kl_weight).mean()
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters(), 5.0)
        for optimizer in self.optimizers:
            optimizer.step()
        return loss.item()
