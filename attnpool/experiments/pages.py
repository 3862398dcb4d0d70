"""Results of an experiment, and a table of them with what is said about it, for a terminal and as a Markdown page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attnpool.evaluation.tables import markdown_table, text_table


@dataclass(frozen=True)
class ResultPage:
    """A table, the lists of statements below it, and the notes that are needed to read it.

    Attributes:
        title: the heading.
        header: titles of the table's columns.
        rows: cells, see `text_table`.
        lists: statements in groups, each with the sentence that introduces it on the page, "" for none.
        notes: paragraphs.
    """

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    lists: Sequence[tuple[str, Sequence[str]]]
    notes: Sequence[str]

    def markdown(self) -> str:
        """The page."""
        parts = [f"# {self.title}", "\n".join(markdown_table(self.header, self.rows))]
        for intro, statements in self.lists:
            if statements:
                parts += [*([intro] if intro else []), "\n".join(f"- {line}" for line in statements)]
        return "\n\n".join([*parts, *self.notes]) + "\n"

    def text(self) -> str:
        """The same for a terminal; a title "" is left out."""
        parts = [self.title] if self.title else []
        parts += ["\n".join(text_table(self.header, self.rows))]
        parts += ["\n".join(statements) for _, statements in self.lists if statements]
        return "\n\n".join([*parts, "\n".join(self.notes)])


@dataclass(frozen=True)
class Results:
    """What an experiment found: its folder, and the content of its JSON file; `str()` of a subclass is to be read."""

    out: Path
    results: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        return self.results
