"""Every verb has help for everything that can be typed, and its words arrive at the library."""

from __future__ import annotations

import json
import shlex
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from command_line import Outcome, attnpool, refused

from attnpool.cli.main import own_options, parse, verb_parser
from attnpool.cli.verbs import VERBS, poolings, training_options
from attnpool.data import Preprocessing
from attnpool.pooling import POOLINGS
from attnpool.pooling.options import options_of
from attnpool.training.config import OptimizerOptions, TrainOptions


@pytest.mark.parametrize("name", VERBS)
def test_every_option_has_help_and_every_verb_an_example(name: str) -> None:
    verb = VERBS[name]
    text = verb_parser(name, verb).format_help()
    for option in [*own_options(verb), *(option for group in verb.groups().values() for option in group)]:
        assert option.help, f"{name}: {option.name}"
        assert "`" not in option.help, f"{name}: {option.name}"
    words = shlex.split(verb.example)
    assert verb.example in text
    assert words[:2] == ["attnpool", name]
    parse(name, verb, words[2:])


def test_options_of_the_poolings_are_those_of_their_constructors() -> None:
    read = {key: {option.name: option.default for option in found} for key, found in poolings().items()}
    assert read == {
        key: {name: parameter.default for name, parameter in options_of(head).items()} for key, head in POOLINGS.items()
    }


def test_every_option_of_a_training_is_a_flag() -> None:
    groups = {title: {option.name for option in found} for title, found in training_options().items()}
    for title, kind in (("training", TrainOptions), ("optimizer", OptimizerOptions), ("preprocessing", Preprocessing)):
        assert groups[title] == {item.name for item in fields(kind)}
    names = [name for found in groups.values() for name in found]
    assert len(names) == len(set(names))


def test_what_only_another_function_of_the_verb_has_is_refused() -> None:
    refused(attnpool("benchmark", "training", "--heads", "max"), "training has no --heads: leave it out")
    refused(attnpool("reproduce", "poolings", "--mpii", "x"), "poolings has no --mpii: leave it out")


def settings_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "run.json").read_text())["model"]["pooling_options"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--pooling compact_bilinear --dim 32 --signed-sqrt --l2", {"dim": 32, "signed_sqrt": True, "l2": True}),
        ("--pooling covariance --channels 8 --iterations 3", {"channels": 8, "iterations": 3}),
        ("--pooling saliency --saliency centre --no-bias", {"saliency": "centre", "bias": False}),
        ("--pooling multi_query --queries 4 --dim 8 --positions", {"queries": 4, "dim": 8, "positions": True}),
        ("--pooling netvlad --clusters 3 --no-norms", {"clusters": 3, "norms": False}),
        ("--pooling pose --hidden 8 --dropout 0.5 --pose-weight 0", {"hidden": 8, "dropout": 0.5, "joints": 16}),
    ],
)
def test_options_of_poolings(words: str, expected: dict[str, Any], tmp_path: Path, photos: Path) -> None:
    start = ["train", f"folder:{photos}", "--image-size", "64", "--epochs", "1", "--out", tmp_path / "a"]
    attnpool(*start, *words.split()).text()
    assert settings_of(tmp_path / "a").items() >= expected.items()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("compact_bilinear --dim 0", "dim must be at least 1"),
        ("compact_bilinear --rank 2", "compact_bilinear pooling has no option rank"),
        ("average --rank 1", "attnpool: average pooling has no option rank: leave it out, or use pooling attentional"),
        ("covariance --iterations 0", "channels and iterations must be at least 1"),
        ("multi_query --queries 0", "queries must be at least 1, not 0"),
        ("multi_query --queries many", "queries"),
        ("multi_query --queries 4 --dim 6", "dim is 6; give a multiple of queries, which is 4"),
        (
            "multi_query --clusters 4",
            "multi_query pooling has no option clusters: leave it out, or use pooling netvlad",
        ),
        ("netvlad --clusters -1", "clusters must be at least 1, not -1"),
        ("netvlad --positions", "netvlad pooling has no option positions: leave it out, or use pooling multi_query"),
        ("pose --joints 8", "joints is 8, but the pose loss needs 16"),
    ],
)
def test_wrong_options_of_poolings(words: str, said: str, tmp_path: Path, photos: Path) -> None:
    start = ["train", f"folder:{photos}", "--image-size", "64", "--epochs", "1", "--out", tmp_path / "b"]
    refused(attnpool(*start, "--pooling", *words.split()), said)
    assert not (tmp_path / "b").exists()


def test_a_recipe_trains_and_flags_win(tmp_path: Path, photos: Path) -> None:
    (tmp_path / "r.yaml").write_text("epochs: 2\nlr: 0.01\nimage-size: 64\nrank: 2\nseed: 4\nbatch_size: 5\n")

    def train(name: str, *more: Any) -> Outcome:
        return attnpool("train", f"folder:{photos}", "--out", tmp_path / name, "--recipe", tmp_path / "r.yaml", *more)

    train("a").text()
    about = json.loads((tmp_path / "a" / "run.json").read_text())
    recipe = about["recipe"]
    assert [recipe[key] for key in ("epochs", "lr", "seed", "batch_size")] == [2, 0.01, 4, 5]
    assert about["model"]["pooling_options"]["rank"] == 2
    assert about["model"]["preprocessing"]["image_size"] == 64
    # a flag wins before and after --recipe, and where it says what is the default anyway
    words = ("--epochs", 1, "--recipe", tmp_path / "r.yaml", "--seed", 0, "--batch-size", 32)
    attnpool("train", f"folder:{photos}", "--out", tmp_path / "b", *words).text()
    recipe = json.loads((tmp_path / "b" / "run.json").read_text())["recipe"]
    assert [recipe[key] for key in ("epochs", "lr", "seed", "batch_size")] == [1, 0.01, 0, 32]
    (tmp_path / "seeded.yaml").write_text("epochs: 1\nimage_size: 64\nsplit_seed: 5\n")
    start = ("train", f"folder:{photos}", "--recipe", tmp_path / "seeded.yaml")
    attnpool(*start, "--out", tmp_path / "five").text()
    attnpool(*start, "--out", tmp_path / "zero", "--split-seed", 0).text()
    seeds = [json.loads((tmp_path / name / "run.json").read_text())["split"]["split_seed"] for name in ("five", "zero")]
    assert seeds == [5, 0]
    refused(train("c", "--epochs", 0), "epochs is 0")
    refused(train("a", "--epochs", 3), "epochs was 2, is 3")
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("speed: 3", "unknown option 'speed'"),
        ("pooling: average\nrank: 2", "average pooling has no option rank"),
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
        ("split_seed: many", "split_seed is 'many'; it takes int"),
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
    path = tmp_path / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    refused(attnpool("train", "folder:x", "--out", tmp_path / "out", "--recipe", path), f"attnpool: {path}", words)


def test_recipes_that_cannot_be_read(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing.yaml"):
        refused(attnpool("train", "folder:x", "--out", tmp_path / "out", "--recipe", path), path, "as a recipe")
    (tmp_path / "latin.yaml").write_bytes(b"pooling: caf\xe9")
    words = ("train", "folder:x", "--out", tmp_path / "out", "--recipe", tmp_path / "latin.yaml")
    refused(attnpool(*words), "latin.yaml", "as a recipe")
