from __future__ import annotations

import dataclasses

import pytest

from attnpool.cli.verbs import options
from attnpool.data import Preprocessing


@pytest.mark.parametrize(
    "wrong",
    [
        {"image_size": 0},
        {"image_size": 448, "short_side": 447},
        {"max_width": 0},
        {"flip": 1.5},
        {"flip": float("nan")},
        {"color_jitter": -0.1},
    ],
)
def test_wrong_options(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"^\w+ .*; (give|make) "):
        Preprocessing(**wrong)  # type: ignore[arg-type]


def test_every_option_has_help() -> None:
    """An entry under `Args` each, from which the help of its flag is made."""
    read = options("attnpool.data.preprocessing:Preprocessing")
    assert [option.name for option in read] == [field.name for field in dataclasses.fields(Preprocessing)]
    assert all(len(option.help) > 20 for option in read)
