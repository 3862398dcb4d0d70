"""Values from YAML in the types of the options that they are meant for."""

from __future__ import annotations

from typing import Any, Literal

import pytest

from attnpool.training.config import converted, converted_arguments


@pytest.mark.parametrize(
    ("value", "hint", "expected"),
    [("1e-3", float, 0.001), (3, float, 3.0), (3, int | None, 3), (True, bool, True), ("a", Literal["a", "b"], "a")],
)
def test_values_take_the_type_of_the_option(value: Any, hint: Any, expected: Any) -> None:
    found = converted("x", value, hint, expected)
    assert found == expected
    assert type(found) is type(expected)


def test_no_value() -> None:
    assert converted("x", None, float | None, None) is None
    with pytest.raises(ValueError, match=r"x has no value; give one, such as 0\.5, or leave the option out"):
        converted("x", None, float, 0.5)


@pytest.mark.parametrize(
    ("value", "hint", "message"),
    [
        ("yes", bool, "x is 'yes'; write true or false"),
        ("c", Literal["a", "b"], "x is 'c'; use one of a, b"),
        ("many", int, "x is 'many'; it takes int"),
        (1.5, int, "x is 1.5; it takes int"),
    ],
)
def test_values_of_another_type(value: Any, hint: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        converted("x", value, hint, None)


def test_arguments_of_a_function_are_picked_out() -> None:
    def made(rate: float, epochs: int = 3) -> None: ...

    assert converted_arguments(made, {"epochs": "4", "other": "x"}) == {"epochs": 4}
