"""The playground: a generated world of people doing things with objects, in which everything is known exactly."""

from attnpool.playground.compose import CLASSES
from attnpool.playground.scene import Figure, Scene, Thing, render
from attnpool.playground.styles import STYLES, write_style
from attnpool.playground.write_hico import write_hico
from attnpool.playground.write_hmdb51 import write_hmdb51
from attnpool.playground.write_mpii import write_mpii
from attnpool.playground.writer import write_folder

__all__ = [
    "CLASSES",
    "STYLES",
    "Figure",
    "Scene",
    "Thing",
    "render",
    "write_folder",
    "write_hico",
    "write_hmdb51",
    "write_mpii",
    "write_style",
]
