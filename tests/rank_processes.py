"""Two processes that train one model together, for the tests that compare them with one."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

__all__ = ["two_ranks"]


def two_ranks(module: str, directory: Path, *options: str) -> list[Any]:
    """Run a module as rank 0 and 1 of 2; what each has saved in `directory`.

    Args:
        module: its arguments are rank, ranks and directory.
        directory: empty.
        options: of Python.
    """
    command = [sys.executable, *options, "-m", module]
    processes = [
        subprocess.Popen([*command, str(rank), "2", str(directory)], stderr=subprocess.PIPE, text=True)
        for rank in (0, 1)
    ]
    try:
        for process in processes:
            _, errors = process.communicate(timeout=240)
            assert process.returncode == 0, errors[-4000:]
    finally:
        for process in processes:
            process.kill()
    return [torch.load(directory / f"{rank}.pt", weights_only=True) for rank in (0, 1)]
