"""Pages that are made by a command hold all that it makes."""

from __future__ import annotations

from option_table import option_table, stated


def test_every_option_of_the_poolings_is_on_its_page() -> None:
    made = option_table()
    assert stated() == made, f"run python tests/option_table.py, which writes\n{made}"
