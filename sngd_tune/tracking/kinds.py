"""What a run directory can be of: a study, a comparison or a scaling study. The manifest that lies in it tells."""

from pathlib import Path

from sngd_tune.tracking.comparison import ComparisonManifest
from sngd_tune.tracking.group_manifest import GroupManifest
from sngd_tune.tracking.manifest import Manifest
from sngd_tune.tracking.scaling import ScalingManifest

__all__ = ["KINDS", "MANIFESTS", "NO_RUN", "Kind", "check_new"]

Kind = type[Manifest] | type[GroupManifest]

KINDS: tuple[Kind, ...] = (Manifest, ComparisonManifest, ScalingManifest)

#: Names of their files.
MANIFESTS = tuple(kind.NAME for kind in KINDS)

#: What is said of a place where none of them lies.
NO_RUN = (
    f"no {', '.join(kind.KIND for kind in KINDS[:-1])} or {KINDS[-1].KIND} there "
    f"(no {', '.join(MANIFESTS[:-1])} or {MANIFESTS[-1]})"
)


def check_new(directory: Path) -> None:
    """Raise ConfigurationError where a run of any kind lies in `directory` already."""
    for kind in KINDS:
        kind.check_absent(directory)
