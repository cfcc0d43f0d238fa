"""What language workloads have in common: a text as windows of tokens, each to be told from those before it."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
from torch import Tensor, nn

from sngd_tune.errors import ConfigurationError
from sngd_tune.workloads.parquet import read_table
from sngd_tune.workloads.workload import Split, Workload

__all__ = ["LanguageWorkload", "make_vocabulary", "read_lines", "windows"]


class LanguageWorkload(Workload):
    """Logits ``[n, positions, vocabulary]`` against the next tokens ``[n, positions]`` (int64)."""

    likelihood = "softmax"
    evaluation_batch: ClassVar[int] = 64  # a logit for each token of each position

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean cross entropy over all positions (nats; its exponential is the perplexity)."""
        return nn.functional.cross_entropy(outputs.flatten(0, -2), targets.flatten())

    def correct(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Each window by the share of its positions where the largest logit is at the next token."""
        return (outputs.argmax(-1) == targets).float().mean(-1).sum()


def read_lines(data_dir: Path | None, name: str, split: str) -> tuple[Path, list[str]]:
    """The column ``text`` of ``<data_dir>/<name>/<split>.parquet``, a line a row. Raises ConfigurationError."""
    path, table = read_table(data_dir, name, split, {"text": "text"})
    return path, table["text"].to_pylist()


def make_vocabulary(path: Path, tokens: Iterable[str], size: int) -> dict[str, int]:
    """Token → number, in alphabetical order.

    Raises:
        ConfigurationError: there are more than the model's `size`.
    """
    found = sorted(set(tokens))
    if len(found) > size:
        message = f"{path}: has {len(found)} different tokens; the model takes {size} at most"
        raise ConfigurationError(f"{message}: is this the text that the README names under 'Data'?")
    return {token: number for number, token in enumerate(found)}


def windows(path: Path, tokens: Sequence[str], vocabulary: dict[str, int], length: int) -> Split:
    """Non-overlapping windows ``[n, length]``, and for targets the same one token later. The rest is left out.

    Raises:
        ConfigurationError: a token is not in the vocabulary, or the text is shorter than one window.
    """
    unknown = sorted(set(tokens) - set(vocabulary))
    if unknown:
        message = f"{path}: has {len(unknown)} tokens that the training text has not, such as {unknown[0]!r}"
        raise ConfigurationError(f"{message}; replace them by one that it has")
    count = (len(tokens) - 1) // length
    if count < 1:
        raise ConfigurationError(f"{path}: has {len(tokens)} tokens; must have at least {length + 1}, one window")
    numbers = np.fromiter((vocabulary[token] for token in tokens), np.int64, len(tokens))
    end = count * length
    return Split(numbers[:end].reshape(count, length), numbers[1 : end + 1].reshape(count, length))
