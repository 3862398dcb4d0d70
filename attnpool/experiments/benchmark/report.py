"""What a benchmark makes of its figures: the text that is printed, a page of the documentation, a plot, and files."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from attnpool.evaluation.tables import markdown_table
from attnpool.experiments.benchmark.measure import machine_line
from attnpool.explain.plots import ratio_plot
from attnpool.explain.png import marked
from attnpool.files import MARK, mark, require_folder, require_ours, write_bytes, write_json, write_text


@dataclass(frozen=True)
class Benchmark(ABC):
    """The figures of a benchmark.

    Attributes:
        results: what is written to NAME.json.
        command: what to type for the same figures again.
    """

    results: dict[str, Any]
    command: str = ""

    name: ClassVar[str]  # of the files
    template: ClassVar[str]  # of the page: what `page` and `page_parts` name stands in braces
    promises: ClassVar[tuple[Sequence[str], str]]  # header and alignment of the table of promises

    @abstractmethod
    def parts(self) -> list[str]:
        """The paragraphs and tables that are printed, those that are "" left out; the promises come after them."""

    @abstractmethod
    def page_parts(self) -> Mapping[str, Any]:
        """What this benchmark alone writes into its page."""

    @abstractmethod
    def promise(self, limit: Mapping[str, Any]) -> list[str]:
        """The cells of one of `results["limits"]`, but for the last, which says whether it holds."""

    @abstractmethod
    def plotted(self) -> tuple[dict[str, dict[str, float]], dict[str, bool], str]:
        """What is drawn: the arguments of `plots.ratio_plot`."""

    def limits(self) -> str:
        """Markdown of what was promised and what was measured; "" if nothing that was promised was measured."""
        rows = [[*self.promise(limit), "yes" if limit["holds"] else "no"] for limit in self.results["limits"]]
        header, align = self.promises
        return "\n".join(markdown_table(header, rows, align)) if rows else ""

    def to_json(self) -> dict[str, Any]:
        return self.results

    def __str__(self) -> str:
        return "\n\n".join(part for part in (*self.parts(), self.limits()) if part)

    def page(self) -> str:
        """The page of the documentation."""
        about = self.results
        return self.template.format(
            command=self.command,
            title=about["title"],
            rounds=about["rounds"],
            machine=machine_line(about["machine"]),
            promised=f"\n## What was promised\n\n{self.limits()}\n" if self.limits() else "",
            **self.page_parts(),
        )

    def plot(self) -> bytes:
        """A PNG of the multiples."""
        return ratio_plot(*self.plotted())

    def save(self, out: Path) -> None:
        """Writes NAME.json, NAME.md and NAME.png."""
        require_free_names(out, self.name)
        write_json(out / f"{self.name}.json", {MARK: mark()} | self.results)
        write_text(out / f"{self.name}.md", f"<!-- {mark()} -->\n\n{self.page()}")
        write_bytes(out / f"{self.name}.png", marked(self.plot()))


def require_free_names(out: str | Path | None, name: str) -> None:
    """Raises ValueError if the figures of a benchmark would replace files that are not ours."""
    if out is None:
        return
    require_folder(Path(out))
    for suffix in ("json", "md", "png"):
        require_ours(Path(out) / f"{name}.{suffix}", "out")
