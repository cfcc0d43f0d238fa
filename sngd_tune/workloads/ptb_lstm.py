"""`ptb_lstm`: words of the Penn Treebank (Marcus et al. 1993, as prepared by Mikolov et al. 2010), and two LSTM layers.

Windows are examples of their own: the state is not carried from one to the next, so perplexities are somewhat higher
than published ones, and each batch is drawn at random, as everywhere here.
"""

from pathlib import Path
from types import MappingProxyType

from torch import nn

from sngd_tune.records.target import Target
from sngd_tune.workloads.language import LanguageWorkload, make_vocabulary, read_lines, windows
from sngd_tune.workloads.networks import LanguageLstm
from sngd_tune.workloads.workload import Splits

__all__ = ["PtbLstm"]

_VOCABULARY = 10_000  # 9,999 words and the end of a sentence
_END = "<eos>"


class PtbLstm(LanguageWorkload):
    """10,000 words, windows of 35; embedding, 2 LSTM layers and head of width 128 (2.8 million parameters).

    Scaled: `depth` LSTM layers, and embedding and head, of `width`; windows of `sequence_length`.
    """

    axes = MappingProxyType({"width": 128, "depth": 2, "sequence_length": 35})

    target = Target(
        metric="validation_loss",
        value=6.32,
        provenance="what SGD has after 75 % of 30 s, the best of three settings of SGD and AdamW tried by hand (rate 1,"
        " Nesterov's momentum 0.9, cosine, batches of 20), rounded; one shared core, November 2026",
    )

    def load(self, data_dir: Path | None) -> Splits:
        texts = [_words(*read_lines(data_dir, "ptb", split)) for split in ("train", "valid", "test")]
        vocabulary = make_vocabulary(*texts[0], _VOCABULARY)
        return Splits(*(windows(path, words, vocabulary, self.axes["sequence_length"]) for path, words in texts))

    def model(self) -> nn.Module:
        return LanguageLstm(_VOCABULARY, self.axes["width"], self.axes["depth"])


def _words(path: Path, lines: list[str]) -> tuple[Path, list[str]]:
    """The words of all lines, each line closed by the end of a sentence."""
    return path, [word for line in lines for word in (*line.split(), _END)]
