"""What must hold for the files of a cluster to be safe to use: named rules, each with its remedy.

`sngd-tune cluster render` writes nothing that breaks one; `sngd-tune cluster check` asks of files that were edited.
"""

from collections.abc import Sequence

from sngd_tune.cluster.rules import dockerfile, kubernetes, network, ray_up, slurm
from sngd_tune.cluster.rules.documents import Document, read_documents
from sngd_tune.cluster.rules.rule import Breach, Rule

__all__ = ["RULES", "Breach", "Document", "Rule", "breaches", "read_documents"]

RULES: tuple[Rule, ...] = (*kubernetes.RULES, *network.RULES, *ray_up.RULES, *slurm.RULES, *dockerfile.RULES)


def breaches(documents: Sequence[Document]) -> list[Breach]:
    """All that the documents break, taken together: a network policy in one file may be about the pods of another."""
    return [breach for rule in RULES for breach in rule.breaches(documents)]
