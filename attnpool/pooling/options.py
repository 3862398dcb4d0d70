"""The options of the poolings, as their constructors declare them."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from attnpool.pooling.base import PoolingHead


def options_of(head: type[PoolingHead]) -> dict[str, inspect.Parameter]:
    """The options of a pooling: the keyword arguments of its constructor, with their defaults."""
    parameters = inspect.signature(head).parameters
    return {name: given for name, given in parameters.items() if given.kind is inspect.Parameter.KEYWORD_ONLY}


def resolved_options(
    poolings: Mapping[str, type[PoolingHead]], pooling: str, given: Mapping[str, Any]
) -> dict[str, Any]:
    """All options of a pooling: the values that are given, and the defaults of the others.

    Raises:
        ValueError: the pooling is unknown, or has no option of a given name.
    """
    if pooling not in poolings:
        raise ValueError(f"unknown pooling {pooling!r}: use one of {', '.join(poolings)}")
    own = options_of(poolings[pooling])
    for name in given:
        if name not in own:
            having = [key for key, head in poolings.items() if name in options_of(head)]
            instead = f", or use pooling {' or '.join(having)}" if having else ""
            raise ValueError(f"{pooling} pooling has no option {name}: leave it out{instead}")
    return {name: parameter.default for name, parameter in own.items()} | dict(given)
