"""The playground: a generated world of people doing things with objects, in which everything is known exactly."""

from attnpool.playground.compose import CLASSES
from attnpool.playground.scene import Figure, Scene, Thing, render
from attnpool.playground.writer import write_folder

__all__ = ["CLASSES", "Figure", "Scene", "Thing", "render", "write_folder"]
