"""A rule, and what breaks it."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sngd_tune.cluster.rules.documents import Document, Kind

__all__ = ["Breach", "Rule", "each"]

#: Yields each document that breaks the rule, with what is wrong in it.
Findings = Callable[[Sequence[Document]], Iterable[tuple[Document, str]]]


@dataclass(frozen=True)
class Breach:
    """A rule that a file breaks: where, what is wrong, and what to do."""

    file: str
    rule: str
    detail: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.file}: {self.rule}: {self.detail}; {self.remedy}"


@dataclass(frozen=True)
class Rule:
    """What must hold for all documents of a kind, and what to do where it does not."""

    name: str
    kind: Kind
    remedy: str
    find: Findings

    def breaches(self, documents: Sequence[Document]) -> Iterator[Breach]:
        """What breaks the rule, in the order of the documents."""
        ours = [document for document in documents if document.kind is self.kind]
        for document, detail in self.find(ours):
            yield Breach(document.source, self.name, detail, self.remedy)


def each(kind: Kind, name: str, find: Callable[[Any], Iterable[str]], remedy: str) -> Rule:
    """A rule about documents one at a time; `find` takes the data of one, and yields what is wrong in it."""

    def find_in_all(documents: Sequence[Document]) -> Iterator[tuple[Document, str]]:
        return ((document, detail) for document in documents for detail in find(document.data))

    return Rule(name, kind, remedy, find_in_all)
