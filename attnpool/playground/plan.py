"""The plan of an image: who and what is in it, before anything is drawn."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from attnpool.playground.backdrop import Place
from attnpool.playground.body import Body, View
from attnpool.playground.draw import Layer


@dataclass(frozen=True)
class PersonPlan:
    """A person in the image: the owner number, the posed body, how it is seen, whether it acts, and as what."""

    owner: int
    body: Body
    view: View
    actor: bool
    label: str = ""


@dataclass(frozen=True)
class ThingPlan:
    """A thing in the image: the owner number, its kind, whether it is in use, and for what."""

    owner: int
    kind: str
    in_use: bool
    label: str = ""


@dataclass
class Plan:
    """Everything that is in one image."""

    label: str
    place: Place
    people: list[PersonPlan]
    things: list[ThingPlan]
    layers: list[Layer]
    rng: np.random.Generator  # what is left of the stream paints the backdrop

    def next_owner(self) -> int:
        """An unused owner number."""
        return len(self.people) + len(self.things) + 1
