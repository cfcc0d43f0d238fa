"""`shakespeare_transformer`: characters of tiny Shakespeare (Karpathy 2015), and a small causal transformer."""

from pathlib import Path
from types import MappingProxyType

from torch import nn

from sngd_tune.records.target import Target
from sngd_tune.workloads.language import LanguageWorkload, make_vocabulary, read_lines, windows
from sngd_tune.workloads.networks import SmallTransformer
from sngd_tune.workloads.workload import Splits

__all__ = ["ShakespeareTransformer"]

_VOCABULARY = 65  # characters


class ShakespeareTransformer(LanguageWorkload):
    """Windows of 64 characters, 3 layers of width 128; the first 90 % of the text train, 5 % validate, 5 % test.

    Scaled: `depth` layers of `width`, a multiple of its 4 heads; windows of `sequence_length`.
    """

    axes = MappingProxyType({"width": 128, "depth": 3, "sequence_length": 64})

    target = Target(
        metric="validation_loss",
        value=2.15,
        provenance="what AdamW has after 75 % of 20 s with the better of two rates tried by hand (0.006, cosine with"
        " warm-up, batches of 16), rounded; one core, November 2026",
    )

    def load(self, data_dir: Path | None) -> Splits:
        path, lines = read_lines(data_dir, "tiny_shakespeare", "all")
        text = "\n".join(lines) + "\n"
        ends = len(text) * 90 // 100, len(text) * 95 // 100
        parts = text[: ends[0]], text[ends[0] : ends[1]], text[ends[1] :]
        vocabulary = make_vocabulary(path, parts[0], _VOCABULARY)
        return Splits(*(windows(path, part, vocabulary, self.axes["sequence_length"]) for part in parts))

    def model(self) -> nn.Module:
        return SmallTransformer(_VOCABULARY, self.axes["width"], self.axes["depth"], self.axes["sequence_length"])
