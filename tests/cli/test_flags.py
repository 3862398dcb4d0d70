"""Flags made of dataclass fields, recipes as their defaults, folders as lists of images."""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import pytest
from attnpool.cli.parser import build_parser
from command_line import Outcome, attnpool, refused

from attnpool.cli.flags import Parser, add_fields, add_recipe, collect, expand, read_recipe
from attnpool.data import Preprocessing
from attnpool.training.config import OptimizerOptions, TrainOptions


@dataclass(frozen=True)
class Options:
    count: int = field(default=3, metadata={"help": "how many, at 100%"})
    rate: float | None = field(default=None, metadata={"help": "how fast (default: by count)"})
    kind: Literal["a", "b"] = field(default="a", metadata={"help": "which"})
    quick: bool = field(default=False, metadata={"help": "or not"})

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError(f"count is {self.count}; give at least 1")


def parse(*words: str) -> argparse.Namespace:
    parser = Parser(prog="attnpool")
    add_fields(parser, Options)
    return parser.parse_args(words)


def test_fields_become_flags() -> None:
    assert collect(Options, parse()) == Options()
    words = ("--count", "5", "--rate", "1e-3", "--kind", "b", "--quick")
    assert collect(Options, parse(*words)) == Options(5, 1e-3, "b", True)
    assert collect(Options, parse("--quick", "--no-quick")) == Options()
    with pytest.raises(ValueError, match="count is 0"):
        collect(Options, parse("--count", "0"))


@pytest.mark.parametrize("words", [("--count", "x"), ("--kind", "c"), ("--rate",), ("--speed", "3")])
def test_errors_are_one_line(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(*words)
    assert ended.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert words[0] in err


def test_help_says_defaults_once() -> None:
    parser = Parser(prog="attnpool")
    add_fields(parser, Options)
    text = " ".join(parser.format_help().split())
    assert "how many, at 100% (default: 3)" in text
    assert "how fast (default: by count)" in text
    assert "None" not in text


def test_every_option_of_a_training_is_a_flag() -> None:
    args = build_parser(["train"]).parse_args(["train", "folder:x", "--out", "y"])
    for options in (TrainOptions, OptimizerOptions, Preprocessing):
        assert collect(options, args) == options()


# recipes


def recipe_of(tmp_path: Path, text: str) -> Any:
    path = tmp_path / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    args = build_parser(["train"]).parse_args(["train", "folder:x", "--out", "y", "--recipe", str(path)])
    return read_recipe(args)


def test_a_recipe(tmp_path: Path) -> None:
    text = "epochs: 3\nbatch-size: 8  # either spelling\nlr: 1e-3\npooling: pose\nfreeze_backbone: false\nclip: null\n"
    assert recipe_of(tmp_path, text) == {
        "epochs": 3, "batch_size": 8, "lr": 1e-3, "pooling": "pose", "freeze_backbone": False, "clip": None,
    }  # fmt: skip
    assert recipe_of(tmp_path, "cache: some/where") == {"cache": Path("some/where")}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("speed: 3", "unknown option 'speed'"),
        ("out: elsewhere", "unknown option 'out'"),
        ("source: folder:x", "unknown option 'source'"),
        ("3: 4", "unknown option '3'"),
        ("epochs: many", "epochs is 'many'; it takes int"),
        ("epochs: 1.5", "epochs is 1.5; it takes int"),
        ("epochs: [1, 2]", "epochs is [1, 2]; it takes int"),
        ("epochs: true", "epochs is True; it takes int"),
        ("batch_size:", "batch_size has no value"),
        ("pooling:", "pooling has no value"),
        ("lr: fast", "lr is 'fast'; it takes float"),
        ("optimizer: lamb", "optimizer is 'lamb'; use one of auto, adamw, sgd"),
        ("freeze_backbone: 1", "freeze_backbone is 1; write true or false"),
        ("per_class: 'yes'", "per_class is 'yes'; write true or false"),
        ("- epochs", "not a recipe"),
        ("epochs 3", "not a recipe"),
        ("", "not a recipe"),
        ("epochs: 3\nlr: [1", "line 2"),
        ("epochs: 3\n\tlr: 4", "line 2"),
        ("seed: !!python/object:os.system {}", "line 1"),
        ("day: 2024-13-45", "month must be in 1..12"),
    ],
)
def test_recipes_that_cannot_be_used(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ValueError) as caught:
        recipe_of(tmp_path, text)
    assert words in str(caught.value)
    assert str(caught.value).startswith(str(tmp_path / "recipe.yaml"))
    assert "\n" not in str(caught.value)


def test_recipes_that_cannot_be_read(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing.yaml"):
        refused(attnpool("train", "folder:x", "--out", tmp_path / "out", "--recipe", path), path, "as a recipe")
    (tmp_path / "latin.yaml").write_bytes(b"pooling: caf\xe9")
    words = ("train", "folder:x", "--out", tmp_path / "out", "--recipe", tmp_path / "latin.yaml")
    refused(attnpool(*words), "latin.yaml", "as a recipe")


def test_a_recipe_trains_and_flags_win(tmp_path: Path, photos: Path) -> None:
    (tmp_path / "r.yaml").write_text("epochs: 2\nlr: 0.01\nimage_size: 64\nrank: 2\nseed: 4\nbatch_size: 5\n")

    def train(name: str, *more: Any) -> Outcome:
        return attnpool("train", f"folder:{photos}", "--out", tmp_path / name, "--recipe", tmp_path / "r.yaml", *more)

    train("a").text()
    about = json.loads((tmp_path / "a" / "run.json").read_text())
    recipe = about["recipe"]
    assert [recipe[key] for key in ("epochs", "lr", "seed", "batch_size")] == [2, 0.01, 4, 5]
    assert about["model"]["head_options"] == {"rank": 2}
    assert about["model"]["view"]["image_size"] == 64
    # a flag wins before and after --recipe, and where it says what is the default anyway
    words = ("--epochs", 1, "--recipe", tmp_path / "r.yaml", "--seed", 0, "--batch-size", 32)
    attnpool("train", f"folder:{photos}", "--out", tmp_path / "b", *words).text()
    recipe = json.loads((tmp_path / "b" / "run.json").read_text())["recipe"]
    assert [recipe[key] for key in ("epochs", "lr", "seed", "batch_size")] == [1, 0.01, 0, 32]
    refused(train("c", "--epochs", 0), "epochs is 0")
    refused(train("a", "--epochs", 3), "epochs was 2, is 3")
    assert not (tmp_path / "c").exists()


def test_options_of_second_order_pooling(tmp_path: Path, photos: Path) -> None:
    words = ["train", f"folder:{photos}", "--image-size", "64", "--epochs", "1", "--pooling", "compact_bilinear"]
    attnpool(*words, "--dim", 32, "--signed-sqrt", "--l2", "--out", tmp_path / "a").text()
    about = json.loads((tmp_path / "a" / "run.json").read_text())
    assert about["model"]["head_options"] == {"dim": 32, "signed_sqrt": True, "l2": True}
    refused(attnpool(*words, "--dim", 0, "--out", tmp_path / "b"), "dim must be at least 1")
    refused(attnpool(*words, "--rank", 2, "--out", tmp_path / "b"), "compact_bilinear pooling has no option rank")
    words[-1] = "covariance"
    attnpool(*words, "--dim", 8, "--iterations", 3, "--out", tmp_path / "c").text()
    about = json.loads((tmp_path / "c" / "run.json").read_text())
    assert about["model"]["head_options"] == {"dim": 8, "iterations": 3}
    refused(attnpool(*words, "--iterations", 0, "--out", tmp_path / "b"), "dim and iterations must be at least 1")
    words[-1] = "saliency"
    attnpool(*words, "--saliency", "centre", "--out", tmp_path / "d").text()
    about = json.loads((tmp_path / "d" / "run.json").read_text())
    assert about["model"]["head_options"] == {"saliency": "centre"}


def test_options_of_multi_query_and_netvlad_pooling(tmp_path: Path, photos: Path) -> None:
    words = ["train", f"folder:{photos}", "--image-size", "64", "--epochs", "1", "--pooling", "multi_query"]
    attnpool(*words, "--queries", 4, "--dim", 8, "--positions", "--out", tmp_path / "a").text()
    about = json.loads((tmp_path / "a" / "run.json").read_text())
    assert about["model"]["head_options"] == {"dim": 8, "queries": 4, "positions": True}
    wrong = [*words, "--out", tmp_path / "b"]
    refused(attnpool(*wrong, "--queries", 0), "queries must be at least 1, not 0")
    refused(attnpool(*wrong, "--queries", "many"), "queries")
    refused(attnpool(*wrong, "--queries", 4, "--dim", 6), "dim is 6; give a multiple of queries, which is 4")
    refused(attnpool(*wrong, "--clusters", 4), "multi-query pooling has no option clusters", "use pooling netvlad")
    wrong[-3] = words[-1] = "netvlad"
    attnpool(*words, "--clusters", 3, "--no-l2", "--out", tmp_path / "c").text()
    about = json.loads((tmp_path / "c" / "run.json").read_text())
    assert about["model"]["head_options"] == {"l2": False, "clusters": 3}
    refused(attnpool(*wrong, "--clusters", -1), "clusters must be at least 1, not -1")
    refused(attnpool(*wrong, "--positions"), "netvlad pooling has no option positions", "use pooling multi_query")
    assert not (tmp_path / "b").exists()


def test_recipe_names_every_flag_but_its_own() -> None:
    parser = build_parser(["train"])
    args = parser.parse_args(["train", "folder:x", "--out", "y"])
    flags = {action.dest for action in args.parser._actions if action.option_strings}
    expected = {f.name for options in (TrainOptions, OptimizerOptions, Preprocessing) for f in fields(options)}
    assert expected | {"pooling", "backbone", "weights", "recipe", "cache", "split_seed"} <= flags


# lists of images


def test_expand(tmp_path: Path) -> None:
    for name in ("b.JPG", "a.png", "notes.txt", ".hidden.jpg", "deeper/c.jpg"):
        (tmp_path / "p" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "p" / name).touch()
    p = tmp_path / "p"
    assert expand([str(p)]) == [p / "a.png", p / "b.JPG"]
    assert expand([str(p / "notes.txt"), str(p / "deeper")]) == [p / "notes.txt", p / "deeper" / "c.jpg"]
    with pytest.raises(ValueError, match="no such file"):
        expand([str(p), str(tmp_path / "q")])
    (tmp_path / "bare").mkdir()
    with pytest.raises(ValueError, match="no images in this folder"):
        expand([str(tmp_path / "bare")])


def test_add_recipe_is_for_its_own_parser() -> None:
    parser = Parser(prog="attnpool")
    add_recipe(parser)
    assert parser.parse_args([]).recipe is None
    assert parser.parse_args(["--recipe", "x.yaml"]).parser is parser
