"""What experiments are given, and the command that a page says it was made with."""

from __future__ import annotations

from pathlib import Path

import pytest

from attnpool.experiments.arguments import command_line, require_positive, require_seeds, weight_files


def test_the_command_leaves_out_defaults() -> None:
    def command(epochs: int, seeds: list[int]) -> str:
        arguments = {"out": (Path("q"), None), "epochs": (epochs, 6), "seeds": (seeds, (0, 1, 2))}
        return command_line("quickstart", arguments)

    assert command(6, [0, 1, 2]) == "attnpool quickstart --out q"
    assert command(5, [7]) == "attnpool quickstart --out q --epochs 5 --seeds 7"


def test_the_command_can_be_typed() -> None:
    arguments = {
        "quick": (True, False),
        "image_size": (64, None),
        "compile": ([], None),
        "heads": (["max", "timm"], ()),
        "device": ("cpu", "cpu"),
        "out": ("two words", None),
    }
    words = "attnpool benchmark pooling --quick --image-size 64 --compile --heads max timm --out 'two words'"
    assert command_line("benchmark pooling", arguments) == words


def test_weights() -> None:
    assert weight_files(["bn_inception=a.pth", "lite0=b=c"]) == {"bn_inception": Path("a.pth"), "lite0": Path("b=c")}
    assert weight_files([]) == {}
    for word in ("a", "=a", "a="):
        with pytest.raises(ValueError, match=f"weights {word}: write BACKBONE=FILE, such as bn_inception="):
            weight_files(["lite0=b", word])


def test_numbers() -> None:
    require_seeds([0])
    require_positive({"rounds": 1})
    for seeds in ([], [1, 1]):
        with pytest.raises(ValueError, match="give one or more different numbers"):
            require_seeds(seeds)
    with pytest.raises(ValueError, match="batch_size is 0; give at least 1"):
        require_positive({"rounds": 1, "batch_size": 0})
