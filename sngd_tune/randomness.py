"""Torch's global generators, which layers such as dropout draw from: to keep in a checkpoint, and to part the ranks."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

__all__ = ["draw_apart", "random_states", "set_random_states"]


def random_states(device: torch.device) -> list[Tensor]:
    """The states of the CPU's generator and, where `device` is a GPU, of its own."""
    states = [torch.get_rng_state()]
    return [*states, torch.cuda.get_rng_state(device)] if device.type == "cuda" else states


def set_random_states(states: Sequence[Tensor], device: torch.device) -> None:
    """Go on from `random_states`."""
    torch.set_rng_state(states[0].cpu())
    if device.type == "cuda":
        torch.cuda.set_rng_state(states[-1].cpu(), device)


def draw_apart(seed: int, epoch: int, rank: int) -> None:
    """Give a rank random numbers of its own, and for each epoch anew, so that no checkpoint has to hold them."""
    seeds = np.random.SeedSequence((seed, epoch, rank))
    torch.manual_seed(int(seeds.generate_state(1, np.uint64)[0]))
