"""Texts: a row for each line, without its newline, so that the rows are the file byte for byte."""

from collections.abc import Sequence

import pyarrow as pa

from sngd_tune.datasets.checksums import sha256
from sngd_tune.datasets.layout import Layout
from sngd_tune.datasets.originals import Content
from sngd_tune.errors import ConfigurationError

__all__ = ["TextLines"]


class TextLines(Layout):
    r"""``text``: the lines of one UTF-8 file. Only ``\n`` ends a line; blanks around it stay."""

    schema = pa.schema([pa.field("text", pa.string(), nullable=False)])

    def read(self, files: Sequence[Content]) -> pa.Table:
        (file,) = files
        try:
            text = file.data.decode("utf-8")
        except UnicodeDecodeError as error:
            message = f"{file.where}: is not UTF-8 text ({error.reason} at byte {error.start}); it must be"
            raise ConfigurationError(f"{message}: convert it, or fetch it again") from error
        if not text.endswith("\n"):
            found = "does not end with a newline" if text else "is empty"
            raise ConfigurationError(f"{file.where}: {found}; its last line must: it is cut off, fetch it again")
        return pa.table({"text": text[:-1].split("\n")}, schema=self.schema)

    def rebuild(self, table: pa.Table, count: int) -> list[bytes]:
        return ["".join(f"{line}\n" for line in table["text"].to_pylist()).encode("utf-8")]

    def checksums(self, table: pa.Table) -> dict[str, str]:
        (content,) = self.rebuild(table, 1)
        return {"sha256_source": sha256(content)}

    def facts(self) -> dict[str, str]:
        return {"note": r"'\n'.join(text) + '\n' is the source file, byte for byte"}
