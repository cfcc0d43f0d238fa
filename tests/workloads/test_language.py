"""Texts as windows: what they hold, what counts as right, and that no model sees what it has to tell."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch import nn

from sngd_tune.errors import ConfigurationError
from sngd_tune.workloads.language import make_vocabulary, read_lines, windows
from sngd_tune.workloads.networks import LanguageLstm, SmallTransformer
from sngd_tune.workloads.ptb_lstm import PtbLstm
from sngd_tune.workloads.shakespeare_transformer import ShakespeareTransformer
from tests.examples.counting import Counting

HERE = Path("text.parquet")
LETTERS = {letter: number for number, letter in enumerate("abcdefgh")}


def write(folder: Path, name: str, split: str, lines: list[str | None] | list[int]) -> None:
    (folder / name).mkdir(exist_ok=True)
    pq.write_table(pa.table({"text": lines}), folder / name / f"{split}.parquet")


def test_windows_follow_each_other_and_the_rest_is_left_out() -> None:
    split = windows(HERE, "abcdefgh", LETTERS, 3)
    assert split.inputs.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert split.targets.tolist() == [[1, 2, 3], [4, 5, 6]]


def test_a_token_that_training_does_not_have() -> None:
    with pytest.raises(ConfigurationError, match="has 2 tokens that the training text has not, such as 'y'; repl"):
        windows(HERE, "abyz", LETTERS, 2)


def test_a_text_shorter_than_a_window() -> None:
    with pytest.raises(ConfigurationError, match=r"text\.parquet: has 3 tokens; must have at least 4"):
        windows(HERE, "abc", LETTERS, 3)


def test_more_tokens_than_the_model_takes() -> None:
    assert make_vocabulary(HERE, "cab", 3) == {"a": 0, "b": 1, "c": 2}
    with pytest.raises(ConfigurationError, match=r"text\.parquet: has 4 different tokens; the model takes 3 at most"):
        make_vocabulary(HERE, "abcd", 3)


@pytest.mark.parametrize("lines", [["a", None], [1, 2], []])
def test_lines_of_another_kind(tmp_path: Path, lines: list[str | None]) -> None:
    write(tmp_path, "ptb", "train", lines)
    with pytest.raises(ConfigurationError, match=r"ptb/train\.parquet: "):
        read_lines(tmp_path, "ptb", "train")


def test_missing_text(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"ptb/train\.parquet: not found; .* the columns text \(text\)"):
        PtbLstm().load(tmp_path)
    with pytest.raises(ConfigurationError, match="tiny_shakespeare: needs a data directory; name it with --data-dir"):
        ShakespeareTransformer().load(None)


def test_lines_of_words_end_with_a_token_of_their_own(tmp_path: Path) -> None:
    for split in ("train", "valid", "test"):
        write(tmp_path, "ptb", split, [" b a "] * 20)
    splits = PtbLstm().load(tmp_path)
    assert splits.train.inputs.shape == (1, 35)
    assert splits.train.inputs[0, :6].tolist() == [2, 1, 0, 2, 1, 0]  # <eos> comes first in the alphabet


def test_characters_are_split_by_position(tmp_path: Path) -> None:
    write(tmp_path, "tiny_shakespeare", "all", ["abcdefghi"] * 400)
    splits = ShakespeareTransformer().load(tmp_path)
    assert [len(part) for part in (splits.train, splits.validation, splits.test)] == [3599 // 64, 199 // 64, 199 // 64]
    assert splits.train.inputs[0, :10].tolist() == [*range(1, 10), 0]


def test_a_window_counts_by_its_share() -> None:
    targets = torch.tensor([[0, 1, 2, 3], [0, 0, 0, 0]])
    outputs = nn.functional.one_hot(torch.tensor([[0, 1, 2, 0], [1, 1, 1, 1]]), 4).float()
    assert float(Counting().correct(outputs, targets)) == 0.75


@pytest.mark.parametrize("model", [LanguageLstm(8, 16), SmallTransformer(8, 16, 2, 12)], ids=["lstm", "transformer"])
@pytest.mark.parametrize("training", [True, False])
def test_no_position_sees_a_later_token(model: nn.Module, training: bool) -> None:
    tokens = torch.from_numpy(np.random.default_rng(0).integers(0, 8, (3, 12)))
    other = tokens.clone()
    other[:, 7:] = (other[:, 7:] + 1) % 8
    model.train(training)
    with torch.set_grad_enabled(training):
        one, two = model(tokens), model(other)
    torch.testing.assert_close(one[:, :7], two[:, :7])
    assert not torch.allclose(one[:, 7:], two[:, 7:])
