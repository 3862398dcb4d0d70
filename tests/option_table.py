"""The tables of docs/pooling-options.md, made from the constructors of the poolings.

    python tests/option_table.py

writes them into the page.
"""

from __future__ import annotations

from pathlib import Path

from attnpool.cli.signatures import Option
from attnpool.cli.verbs import poolings
from attnpool.evaluation.tables import markdown_table
from attnpool.pooling import POOLINGS

PAGE = Path(__file__).parents[1] / "docs" / "pooling-options.md"
BEGIN, END = "<!-- options -->\n", "<!-- end of options -->\n"
TYPES = {int: "integer", float: "number", bool: "true, false", str: "text"}


def option_table() -> str:
    """A row an option, and a row a pooling with its default learning rates."""
    options = [
        [f"`{key}`", f"`{option.name}`", values(option), default(option), option.help.replace("|", r"\|")]
        for key, found in poolings().items()
        for option in found
    ]
    rates = [
        [f"`{key}`", f"{head.learning_rates['adamw']:g}", f"{head.learning_rates['sgd']:g}"]
        for key, head in POOLINGS.items()
    ]
    lines = markdown_table(("pooling", "option", "values", "default", "what it is"), options, "lllll")
    lines += ["", *markdown_table(("pooling", "AdamW", "SGD"), rates)]
    return "".join(f"{line}\n" for line in lines)


def values(option: Option) -> str:
    assert option.type is not None
    return ", ".join(map(str, option.choices)) or TYPES[option.type]


def default(option: Option) -> str:
    if option.default is None:
        return "none"
    return str(option.default).lower() if isinstance(option.default, bool) else str(option.default)


def stated() -> str:
    """What the page has between its marks."""
    return PAGE.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0]


if __name__ == "__main__":
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    PAGE.write_text(before + BEGIN + option_table() + END + rest.partition(END)[2], encoding="utf-8")
