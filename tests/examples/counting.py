"""A language workload of the tests: two tokens of three are the one before plus one, the others are any."""

from pathlib import Path

import numpy as np
from torch import nn

from sngd_tune.workloads.language import LanguageWorkload, windows
from sngd_tune.workloads.networks import LanguageLstm
from sngd_tune.workloads.workload import Splits

TOKENS = "abcdefgh"


class Counting(LanguageWorkload):
    """Windows of 20 tokens."""

    evaluation_batch = 32

    def load(self, data_dir: Path | None) -> Splits:
        rng = np.random.default_rng(0)
        numbers = [0]
        for _ in range(20 * 400):
            numbers.append(int(rng.integers(8)) if rng.random() < 0.35 else (numbers[-1] + 1) % 8)
        vocabulary = {token: number for number, token in enumerate(TOKENS)}
        parts = [numbers[start * 20 : end * 20 + 1] for start, end in ((0, 250), (250, 325), (325, 400))]
        return Splits(*(windows(Path("made"), [TOKENS[i] for i in part], vocabulary, 20) for part in parts))

    def model(self) -> nn.Module:
        return LanguageLstm(vocabulary=8, width=64)
