"""The playground: a generated world of people who do things with objects, with exact annotations of everything."""

from attnpool.playground.compose import CLASSES
from attnpool.playground.playground import STYLES, Playground, write_playground
from attnpool.playground.scene import Figure, Scene, Thing, render

__all__ = [
    "CLASSES",
    "STYLES",
    "Figure",
    "Playground",
    "Scene",
    "Thing",
    "render",
    "write_playground",
]
