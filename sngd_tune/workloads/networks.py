"""Networks that several parts use: the workloads at a size for two cores, ``sngd-tune bench step`` at a larger one."""

import torch
from torch import Tensor, nn

__all__ = ["LanguageLstm", "SmallTransformer", "small_cnn"]


class LanguageLstm(nn.Module):
    """LSTM layers between an embedding and a linear head, all of one width."""

    def __init__(self, vocabulary: int = 1000, width: int = 256, layers: int = 2):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.lstm = nn.LSTM(width, width, num_layers=layers, batch_first=True)
        self.head = nn.Linear(width, vocabulary)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits of the next token: ``[batch, steps] → [batch, steps, vocabulary]``."""
        hidden: Tensor = self.lstm(self.embedding(tokens))[0]
        logits: Tensor = self.head(hidden)
        return logits


class SmallTransformer(nn.Module):
    """A causal transformer: pre-norm layers of 4 heads, on exactly `length` tokens."""

    def __init__(self, vocabulary: int = 96, width: int = 256, layers: int = 4, length: int = 128):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.position = nn.Embedding(length, width)
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(width, 4, 4 * width, dropout=0.0, batch_first=True, norm_first=True)
            for _ in range(layers)
        )
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary)
        self.mask: Tensor
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(length), persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits of the next token: ``[batch, length] → [batch, length, vocabulary]``."""
        hidden = self.embedding(tokens) + self.position(torch.arange(tokens.shape[1], device=tokens.device))
        for block in self.blocks:
            hidden = block(hidden, src_mask=self.mask, is_causal=True)
        logits: Tensor = self.head(self.norm(hidden))
        return logits


def small_cnn(channels: tuple[int, int, int] = (32, 64, 128)) -> nn.Module:
    """Three 3 × 3 convolutions, each with a ReLU and halved by a maximum; ``[n, 1, 28, 28] → [n, 10]``."""
    layers: list[nn.Module] = []
    for c_in, c_out in zip((1, *channels), channels, strict=False):
        layers += [nn.Conv2d(c_in, c_out, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels[-1] * 9, 10))
