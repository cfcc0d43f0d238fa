"""What local Fisher layers will take, told before they are built: bytes of state, roots and refreshes.

Predicted from shapes alone (tensors on torch's meta device hold nothing). A choice that cannot fit is refused with the
figure, since the alternative is an allocation that fails in the middle of training, or a process that is killed.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from sngd_tune.core.account import Match, matches
from sngd_tune.core.local_fisher import LocalFisher
from sngd_tune.core.operators import RootOperator
from sngd_tune.errors import ReconstructionError
from sngd_tune.settings import FisherSettings, SettingsLike, as_settings

__all__ = ["FORMS", "Prediction", "available", "cached_bytes", "check", "predict", "predicted_memory"]

#: Operations of the root that a form uses between refreshes: operators keep what they make for them.
FORMS: dict[str, tuple[str, ...]] = {
    "sgd": ("precondition",),
    "adamw": ("apply", "apply_transpose"),
    "explicit": ("apply", "apply_transpose", "solve", "solve_transpose"),
}

#: Bytes that a refresh has at its peak, as a multiple of the state's, by root: matrices alive at once while the
#: old root stays (counted over every allocation), and what LAPACK's eigensolver takes beside them (2 d²).
_PEAK = {"cholesky": 4, "eigh": 7, "eigenbasis": 7.2, "denman_beavers": 12, "newton_schulz": 12, "nystrom": 2.2}
_PEAK_UNSCALED = 2  # what an iteration starts from under ``root_scale="unit"``: the last root without its scale
_PEAK_DIAGONAL = 18  # its fingerprint is made of 8 columns, as a matrix's is

#: From close to the whole Fisher matrix to far.
_CLOSENESS: tuple[dict[str, object], ...] = (
    {"granularity": "layer"},
    {"granularity": "unit"},
    {"granularity": "kron"},
    {"granularity": "input", "root": "cholesky"},
    {"granularity": "block:64"},
    {"granularity": "input", "root": "nystrom", "rank": 16},
    {"granularity": "diagonal"},
)

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


@dataclass(frozen=True)
class Prediction:
    """Bytes of one local Fisher layer.

    Attributes:
        state: of the running ``G``, with what belongs to it in checkpoints.
        root: of ``R``, with what is kept between refreshes to apply it.
        peak: more than that during a refresh; layers refresh one after the other.
    """

    state: int
    root: int
    peak: int

    @property
    def kept(self) -> int:
        """What stays all the time."""
        return self.state + self.root


def predict(match: Match, form: str = "sgd") -> Prediction:
    """The bytes that the local Fisher layer of a site will take.

    Args:
        match: the site.
        form: one of `FORMS`: the fused form by its base optimizer, or the explicit one.
    """
    shape, weight = match.site.shape, match.parameters[0]
    fisher = LocalFisher(shape, match.settings, dtype=weight.dtype, device="meta")
    state = sum(tensor.nbytes for name, tensor in fisher.named_buffers() if not name.startswith("root_"))
    root = fisher.estimate.identity(fisher.dtype, "meta")
    gradient = torch.empty(1, *shape.lead, shape.d_out, shape.d, dtype=fisher.dtype, device="meta")
    for operation in FORMS[form]:
        getattr(root, operation)(gradient)
    stored = sum(tensor.nbytes for tensor in root.tensors().values())
    diagonal = shape.one_hot or match.settings.granularity == "diagonal"
    times = _PEAK_DIAGONAL if diagonal else _PEAK[str(match.settings.root)]
    if fisher.estimate.starts_from_last and match.settings.root_scale == "unit":
        times += _PEAK_UNSCALED
    return Prediction(state, stored + cached_bytes(root), int(times * state))


def cached_bytes(root: RootOperator) -> int:
    """Bytes that an operator and those it is put together from hold beside `RootOperator.tensors`."""
    own = {id(tensor) for tensor in root.tensors().values()}
    held = {id(tensor): tensor for tensor in _held(root) if id(tensor) not in own and not tensor._is_view()}
    return sum(tensor.nbytes for tensor in held.values())


def _held(root: RootOperator) -> Iterator[Tensor]:
    for value in vars(root).values():
        for each in value if isinstance(value, tuple) else (value,):
            if isinstance(each, RootOperator):
                yield from _held(each)
            elif isinstance(each, Tensor):
                yield each


def predicted_memory(
    model: nn.Module, settings: SettingsLike | None = None, *, form: str = "sgd"
) -> dict[str, Prediction]:
    """The bytes that each local Fisher layer of a model will take, by the name of its site. Nothing is allocated.

    Args:
        model: may be on the meta device.
        settings: as in `SNGD`.
        form: ``"sgd"`` or ``"adamw"`` for `SNGD` with that base, ``"explicit"`` for `reconstruct`.

    Raises:
        ReconstructionError: no layer of the model can get a local Fisher layer.
        SettingsError: a pattern matches no module.

    >>> predicted_memory(nn.Linear(3, 2), FisherSettings(granularity="diagonal"))[""].root
    32
    """
    return {match.name: predict(match, form) for match in matches(model, as_settings(settings))}


def available(device: torch.device) -> int | None:
    """Bytes that can still be allocated on a device; None where nobody can tell.

    On CUDA the driver's free memory and what torch's allocator holds unused; on Linux's CPU what the system has
    available, or what the control group leaves, whichever is less.
    """
    if device.type == "cuda":
        reserved = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + reserved
    if device.type != "cpu":
        return None
    known = [value for value in (_system(), *_control_groups()) if value is not None]
    return min(known) if known else None


def _system(path: Path = Path("/proc/meminfo")) -> int | None:
    lines = _text(path).splitlines()
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)


def _control_groups(proc: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")) -> Iterator[int]:
    """What each control group around this process leaves of its limit; those without a limit are left out."""
    for line in _text(proc).splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            yield from _left(root, path, "memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            files = "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"
            yield from _left(root / "memory", path, *files)


def _left(root: Path, path: str, limit: str, usage: str, cache: str) -> Iterator[int]:
    """In the group and all above it; in a container the path may be the host's, and the root be what there is."""
    group = root / path.lstrip("/")
    for place in (group, *(each for each in group.parents if each.is_relative_to(root))):
        most, used = _text(place / limit).strip(), _text(place / usage).strip()
        if most.isdigit() and used.isdigit():
            statistics = dict(line.split() for line in _text(place / "memory.stat").splitlines())
            yield max(0, int(most) - int(used) + int(statistics.get(cache, 0)))


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def check(found: Sequence[Match], form: str = "sgd") -> None:
    """Refuse what will not fit.

    Args:
        found: the sites that are about to get local Fisher layers.
        form: as in `predict`.

    Raises:
        ReconstructionError: a device has not the memory; with the figures, and the nearest choice that fits.
    """
    for device in {match.parameters[0].device for match in found}:
        free = available(device)
        here = [match for match in found if match.parameters[0].device == device]
        if free is not None and _needed(here, form) > free:
            raise ReconstructionError(_refusal(here, form, device, free))


def _needed(found: Sequence[Match], form: str) -> int:
    predictions = [predict(match, form) for match in found]
    return sum(each.kept for each in predictions) + max(each.peak for each in predictions)


def _refusal(found: Sequence[Match], form: str, device: torch.device, free: int) -> str:
    worst = max(found, key=lambda match: predict(match, form).kept)
    shape, need = worst.site.shape, _needed(found, form)
    size = "×".join(map(str, (*shape.lead, shape.d_out, shape.d)))
    return (
        f"the local Fisher layers need {_in_words(need)}, and {device} has {_in_words(free)} left; most of it goes to"
        f" {worst.name or 'the model'} ({size}, granularity={worst.settings.granularity!r}:"
        f" {_in_words(predict(worst, form).kept)}); {_remedy(found, worst.settings, form, free)}"
    )


def _remedy(found: Sequence[Match], costly: FisherSettings, form: str, free: int) -> str:
    """The nearest of cheaper settings, for all layers that have those of the worst one, with which all of them fit."""
    for choice in _CLOSENESS[_place(costly) :]:  # what is no cheaper does not fit either
        cheaper = replace(costly, **{"root": None, "rank": None, "retained_trace": None, **choice})  # type: ignore[arg-type]
        changed = [replace(match, settings=cheaper) if match.settings == costly else match for match in found]
        need = _needed(changed, form)
        if need <= free:
            words = ", ".join(f"{name}={value!r}" for name, value in choice.items())
            return f"{words} is the nearest choice that fits ({_in_words(need)})"
    return "not even granularity='diagonal' fits: use a smaller model, or free memory"


def _place(settings: FisherSettings) -> int:
    """Where settings stand in `_CLOSENESS`; blocks of any kind where ``"block:64"`` does."""
    for place, choice in enumerate(_CLOSENESS):
        same_block = settings.block is not None and str(choice["granularity"]).startswith("block")
        low_rank = (settings.root == "nystrom") == (choice.get("root") == "nystrom")
        if same_block or (settings.granularity == choice["granularity"] and low_rank):
            return place
    return len(_CLOSENESS)


def _in_words(count: int) -> str:
    """Bytes in the unit that leaves one to three digits before the point."""
    size, place = float(count), 0
    while size >= 1000 and place < len(_UNITS) - 1:
        size, place = size / 1024, place + 1
    return f"{size:.3g} {_UNITS[place]}"
