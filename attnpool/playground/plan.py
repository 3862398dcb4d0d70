"""The plan of an image: the people and things in it, before anything is drawn."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from attnpool.playground.backdrop import Place
from attnpool.playground.body import Body, View
from attnpool.playground.draw import Layer


@dataclass(frozen=True)
class PersonPlan:
    """A person in the image: its owner number, posed body and view, whether it is an actor, and its action."""

    owner: int
    body: Body
    view: View
    actor: bool
    label: str = ""


@dataclass(frozen=True)
class ThingPlan:
    """A thing in the image: its owner number and kind, whether it is in use, and the action that uses it."""

    owner: int
    kind: str
    in_use: bool
    label: str = ""


@dataclass
class Plan:
    """Everything in an image."""

    label: str
    place: Place
    people: list[PersonPlan]
    things: list[ThingPlan]
    layers: list[Layer]
    rng: np.random.Generator  # the rest of this random stream paints the backdrop

    def next_owner(self) -> int:
        """An unused owner number."""
        return len(self.people) + len(self.things) + 1
