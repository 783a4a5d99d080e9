"""Decoding speed against the way of the PyTorch reference code (one step of nn.LSTM at a time, beam search sentence by
sentence), in one run, with the same weights.

Example:
  python -m benchmarks.decode --sentences 100 --words 15

100 sentences of 15 words at the paper's size: vocabulary 20,000, embedding 512, hidden 1,024, latent 32. Random weights
hardly ever end a sentence, so every one runs to its last word. PyTorch's beam search is timed on --torch_beam_sentences
and scaled. The two take turns; medians of wall and of processor seconds (all threads; the latter mean something on a
busy machine too). Needs PyTorch, which the package itself does not. The last line is JSON.
"""

import functools
import json
import os
import statistics
import sys
import time
from argparse import Namespace
from collections import defaultdict
from collections.abc import Callable

import jax
import numpy as np
import torch

from benchmarks import peer
from scalevae_jax.core.network import Decoder, Encoder, Model
from scalevae_jax.data.vocab import BEGIN, END
from scalevae_jax.inference import decoding
from scalevae_jax.inference.decoding import Decoding
from scalevae_jax.runtime import command, console
from scalevae_jax.runtime.command import Parser, integer


class TorchDecoder(peer.Decoder):
    """The counterpart's decoder with the loops that make sentences."""

    def start(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        c = self.state(z).unsqueeze(0)
        return torch.tanh(c), c

    def step(self, token: torch.Tensor, z: torch.Tensor, state: tuple) -> tuple[torch.Tensor, tuple]:
        features = torch.cat([self.words(token), z], dim=-1).unsqueeze(1)
        output, state = self.lstm(features, state)
        return self.output(output.squeeze(1)), state

    def decode(self, z: torch.Tensor, words: int, choose: Callable[[torch.Tensor], torch.Tensor]) -> list[list[int]]:
        """All sentences together, a word at a time."""
        state, token = self.start(z), torch.full((len(z),), BEGIN)
        sentences, live = [[] for _ in z], torch.ones(len(z), dtype=torch.bool)
        for _ in range(words):
            logits, state = self.step(token, z, state)
            token = choose(logits)
            for i, word in enumerate(token.tolist()):
                if live[i]:
                    sentences[i].append(word)
            live &= token != END
            if not live.any():
                break
        return sentences

    def beam(self, z: torch.Tensor, words: int, width: int) -> list[list[int]]:
        """One sentence after another; hypotheses are objects in lists."""
        sentences = []
        for point in z:
            live, ended = [([BEGIN], 0.0, *self.start(point[None]))], []
            for _ in range(words):
                state = tuple(torch.cat([hypothesis[k] for hypothesis in live], dim=1) for k in (2, 3))
                tokens = torch.tensor([hypothesis[0][-1] for hypothesis in live])
                logits, (h, c) = self.step(tokens, point.expand(len(live), -1), state)
                before = torch.tensor([hypothesis[1] for hypothesis in live])
                scores = torch.log_softmax(logits, dim=-1) + before[:, None]
                best, index = torch.topk(scores.view(-1), width - len(ended))
                after = []
                for score, at in zip(best.tolist(), index.tolist(), strict=True):
                    row, word = divmod(at, scores.shape[1])
                    grown = ([*live[row][0], word], score, h[:, row : row + 1], c[:, row : row + 1])
                    (ended if word == END else after).append(grown)
                live = after
                if len(ended) == width:
                    break
            sentences.append(max(ended or live, key=lambda hypothesis: hypothesis[1])[0][1:])
        return sentences


def turns(rounds: int, contestants: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Median wall and processor seconds of each, taking turns after one unmeasured call of each."""
    seconds: dict[str, list[float]] = defaultdict(list)
    for turn in range(rounds + 1):
        for name, function in contestants.items():
            before = time.perf_counter(), time.process_time()
            function()
            if turn:
                seconds[f"{name}_s"].append(time.perf_counter() - before[0])
                seconds[f"{name}_cpu_s"].append(time.process_time() - before[1])
    return {name: statistics.median(values) for name, values in seconds.items()}


def parser() -> Parser:
    """The arguments of this program."""
    arguments = Parser("benchmarks.decode", __doc__)
    add = arguments.add_argument
    add("--sentences", type=integer(1), default=100, help="sentences")
    add("--words", type=integer(1), default=15, help="words a sentence")
    add("--beam", type=integer(2), default=5, help="hypotheses")
    add("--torch_beam_sentences", type=integer(1), default=10, help="sentences of PyTorch's beam search")
    add("--rounds", type=integer(1), default=5, help="turns of each; beam search takes 3 at most")
    add("--vocabulary", type=integer(10), default=20_000, help="words")
    add("--embedding", type=integer(1), default=512, help="dimensions of a word")
    add("--hidden", type=integer(1), default=1024, help="units")
    add("--latent", type=integer(1), default=32, help="dimensions of z")
    return arguments


def _command(options: Namespace) -> None:
    sentences, words, beam = options.sentences, options.words, options.beam
    sizes = (options.vocabulary, options.embedding, options.hidden, options.latent)
    model = Model(Encoder(*sizes), Decoder(*sizes))
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    params = jax.tree.map(lambda x: np.float32(rng.uniform(-0.1, 0.1, x.shape)), shapes)
    z = np.float32(rng.normal(size=(sentences, sizes[-1])))
    counterpart = TorchDecoder(*sizes)
    counterpart.load(params["decoder"])
    params, keys = jax.device_put(params), jax.random.split(jax.random.key(0), sentences)
    torch_z = torch.from_numpy(z)
    torch.manual_seed(0)

    def ours(**how) -> Callable[[], np.ndarray]:
        chosen = Decoding(max_words=words, mask_unknown=False, **how)
        return lambda: decoding.decode(model, params, z, keys, chosen)

    def draw(logits: torch.Tensor) -> torch.Tensor:
        return torch.multinomial(torch.softmax(logits, dim=-1), 1).squeeze(1)

    some = min(options.torch_beam_sentences, sentences)
    contests = {
        "greedy": (lambda: counterpart.decode(torch_z, words, lambda logits: logits.argmax(-1)), ours(), 1.0),
        "sample": (lambda: counterpart.decode(torch_z, words, draw), ours(temperature=1.0), 1.0),
        f"beam {beam}": (lambda: counterpart.beam(torch_z[:some], words, beam), ours(beam=beam), sentences / some),
    }
    result: dict = {"benchmark": "decode", "sentences": sentences, "words": words, "sizes": sizes}
    with torch.no_grad():
        for name, (theirs, mine, scale) in contests.items():
            rounds = options.rounds if scale == 1 else min(options.rounds, 3)
            took = turns(rounds, {"torch": theirs, "jax": mine})
            took |= {key: scale * took[key] for key in ("torch_s", "torch_cpu_s")}
            ratio, cpu = took["torch_s"] / took["jax_s"], took["torch_cpu_s"] / took["jax_cpu_s"]
            result[name] = took | {"ratio": ratio, "cpu_ratio": cpu}
            seconds = f"PyTorch {took['torch_s']:.3f} s, here {took['jax_s']:.3f} s"
            console.log(f"{name}: {seconds}: {ratio:.2f} times ({cpu:.2f} by processor seconds)")
        same = np.mean([list(a) == list(b)[: len(a)] for a, b in zip(contests["greedy"][0](), ours()(), strict=True)])
    result |= {"same_greedy_sentences": float(same), "torch_beam_sentences": some, "load": os.getloadavg()[0]}
    result |= {"torch": torch.__version__, "jax": jax.__version__, "threads": torch.get_num_threads()}
    result["device"] = jax.devices()[0].device_kind
    print(json.dumps(result))


main = functools.partial(command.run, _command, parser)


if __name__ == "__main__":
    sys.exit(main())
