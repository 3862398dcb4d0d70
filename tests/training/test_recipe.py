"""Recipes: files on top of files, what is wrong with them in one line, and options of a checked type."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from command_line import attnpool, refused
from hypothesis import given
from hypothesis import strategies as st

from attnpool.training.config import MODEL, PARTS, Options, pooling_option_names, typed_options
from attnpool.training.recipe import RECIPES, read_recipe


def write(folder: Path, **texts: str) -> Path:
    """Writes recipes; the path of the first."""
    for name, text in texts.items():
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    return folder / f"{next(iter(texts))}.yaml"


def complaint(call: Any, *arguments: Any) -> str:
    with pytest.raises(ValueError) as caught:
        call(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# files


def test_a_recipe_without_a_base(tmp_path: Path) -> None:
    text = "about: {row: x}\nimage-size: 64\nweight_decay: 1e-3\nsmall: {max-width: null, rank: 2}\n"
    recipe = read_recipe(write(tmp_path, mine=text))
    assert recipe.name == "mine"
    assert recipe.options == {"image_size": 64, "weight_decay": "1e-3"}  # which is a string to YAML
    assert recipe.small == {"max_width": None, "rank": 2}
    assert recipe.about == {"row": "x"}
    assert Options.of(recipe.options).optimizer.weight_decay == 0.001


def test_bases_are_changed_and_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "deeper").mkdir()
    write(
        tmp_path / "deeper",
        c="about: {row: c, data: x}\nepochs: 3\nrank: 2\nsmall: {epochs: 1, lr: 0.1}",
        b="base: c.yaml\nabout: {row: b}\nrank: null\nbatch-size: 4\nsmall: {lr: 0.2}",
    )
    recipe = read_recipe(write(tmp_path, a="base: deeper/b.yaml\nbatch_size: 5\nsmall: {seed: 7}"))
    assert recipe.name == "a"
    assert recipe.options == {"epochs": 3, "rank": None, "batch_size": 5}
    assert recipe.small == {"epochs": 1, "lr": 0.2, "seed": 7}
    assert recipe.about == {"row": "b", "data": "x"}


@pytest.mark.parametrize("base", ["a.yaml", "./a.yaml", "b.yaml", "c.yaml"])
def test_bases_that_go_round_in_circles(tmp_path: Path, base: str) -> None:
    (tmp_path / "deeper").mkdir()
    path = write(tmp_path, a=f"base: {base}", b="base: deeper/../a.yaml", c="base: deeper/../c.yaml")
    assert "is its own base; remove the line 'base'" in complaint(read_recipe, path)


def test_a_base_may_be_used_twice(tmp_path: Path) -> None:
    write(tmp_path, c="rank: 3", b="base: c.yaml")
    assert read_recipe(write(tmp_path, a="base: b.yaml")).options == {"rank": 3}
    assert read_recipe(write(tmp_path, a="base: c.yaml")).options == {"rank": 3}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("rank: 2\nlr: [1", "a.yaml, line 2: cannot be read as a recipe (expected"),
        ("rank: 2\n\tlr: 4", "a.yaml, line 2: cannot be read as a recipe"),
        ("rank: 2\n lr: 4", "a.yaml, line 2"),
        ("rank: !!python/name:os.system", "a.yaml, line 1"),
        ("? [1, 2]\n: 3", "a.yaml, line 1"),
        ("rank: '\0'", "a.yaml: cannot be read as a recipe"),
        ("[" * 5000, "a.yaml: cannot be read as a recipe"),
        ("rank: 2\n\nlr: 1\nrank: 3", "a.yaml, line 4: rank is given twice; remove one"),
        ("rank: 2\nsmall:\n  lr: 1\n  lr: 2", "a.yaml, line 4: lr is given twice"),
        ("image-size: 2\nimage_size: 2", "a.yaml: image_size is given twice"),
        ("small: {image-size: 2, image_size: 2}", "a.yaml: image_size is given twice"),
        ("- rank", "a.yaml: not a recipe; write lines such as 'rank: 2'"),
        ("", "a.yaml: not a recipe"),
        ("small: 3", "a.yaml: small is 3; write a mapping"),
        ("about:", "a.yaml: about is None; write a mapping"),
        ("base: nowhere.yaml", "nowhere.yaml: cannot be read as a recipe (No such file"),
        ("base: [a]", "cannot be read as a recipe"),
        ("base: .", "cannot be read as a recipe (Is a directory)"),
        ("base: b.yaml", "b.yaml, line 3: cannot be read"),
    ],
)
def test_files_that_cannot_be_used(tmp_path: Path, text: str, words: str) -> None:
    path = write(tmp_path, a=text, b="rank: 2\n\n: : :\n- 3")
    message = complaint(read_recipe, path)
    assert words in message
    assert str(tmp_path) in message


# options


WRONG = [
    ({"rank": "two"}, "rank is 'two'; it takes int"),
    ({"rank": 1.5}, "rank is 1.5; it takes int"),
    ({"rank": True}, "rank is True; it takes int"),
    ({"epochs": 1.5}, "epochs is 1.5; it takes int"),
    ({"epochs": [1]}, "epochs is [1]; it takes int"),
    ({"epochs": 0}, "epochs is 0; give at least 1"),
    ({"batch_size": None}, "batch_size has no value; give one, such as 32"),
    ({"backbone": None}, "backbone has no value; give one, such as lite0"),
    ({"freeze_backbone": "maybe"}, "freeze_backbone is 'maybe'; write true or false"),
    ({"freeze_backbone": 1}, "freeze_backbone is 1; write true or false"),
    ({"freeze_backbone": None}, "freeze_backbone has no value"),
    ({"per_class": "yes"}, "per_class is 'yes'; write true or false"),
    ({"lr": "fast"}, "lr is 'fast'; it takes float"),
    ({"lr": {"a": 1}}, "lr is {'a': 1}; it takes float"),
    ({"lr": "nan"}, "lr is nan; give a positive number"),
    ({"dropout_on": "rows"}, "dropout_on is 'rows'; use one of pooled, positions"),
    ({"schedule": False}, "schedule is False; use one of cosine, step, constant"),
    ({"loss": ["bce"]}, "loss is ['bce']; use one of auto, "),
    ({"short_side": 10}, "short_side 10 is smaller than image_size 448"),
    ({"speed": 3}, "unknown option 'speed'; see attnpool train --help"),
    ({"image-size": 3}, "unknown option 'image-size'"),
    ({3: 4}, "unknown option 3"),
]


@pytest.mark.parametrize(("values", "words"), WRONG, ids=lambda value: str(value)[:30])
def test_values_that_cannot_be_used(tmp_path: Path, values: dict[str, Any], words: str) -> None:
    assert complaint(Options.of, values, "here").startswith(f"here: {words}")
    assert complaint(Options.of({}).change, values).startswith(f"options: {words}")


def test_values_as_yaml_gives_them() -> None:
    options = Options.of({"lr": "1e-3", "epochs": "4", "weight_decay": 0, "rank": 2, "clip": None, "bias": False})
    assert (options.optimizer.lr, options.train.epochs, options.optimizer.weight_decay) == (0.001, 4, 0.0)
    assert isinstance(options.optimizer.weight_decay, float)
    assert (options.model["pooling_options"], options.optimizer.clip) == ({"rank": 2, "bias": False}, None)


def test_parts_share_no_name_and_all_are_reached() -> None:
    names = [*MODEL, *(item.name for part in PARTS.values() for item in fields(part))]
    assert len(set(names)) == len(names)
    assert list(Options.of({}).flat()) == names
    assert not set(names) & pooling_option_names()


@given(
    values=st.fixed_dictionaries(
        {},
        optional={
            "rank": st.integers(1, 9),
            "lr": st.none() | st.floats(1e-9, 1e3),
            "per_class": st.booleans(),
            "freeze_backbone": st.booleans(),
            "backbone": st.text(min_size=1),
            "activation": st.none() | st.sampled_from(["relu", "sigmoid", "softmax"]),
            "image_size": st.integers(1, 300).map(lambda cells: 32 * cells),
            "flip": st.floats(0, 1),
        },
    )
)
def test_options_are_what_was_said_and_stay_so(values: dict[str, Any]) -> None:
    options = Options.of(values)
    flat = options.flat()
    assert flat == Options.of({}).flat() | values
    assert Options.of(flat) == options
    assert Options.of({}).change(values) == options
    assert options.change({}) == options
    assert options.model["pooling_options"].get("rank") == values.get("rank")


# the command line


def test_a_packaged_recipe_gives_a_training_its_options() -> None:
    path = RECIPES / "table1" / "rank2.yaml"
    values = typed_options(read_recipe(path).options, "r")
    assert not {"base", "small", "about"} & values.keys()
    assert (values["rank"], values["freeze_backbone"], values["batch_size"]) == (2, False, 16)  # from its base, too
    typed = Options.of(read_recipe(path).options).flat()
    assert values == {name: typed[name] for name in values}


def test_packaged_recipes_train_and_flags_win(tmp_path: Path, photos: Path) -> None:
    from attnpool.models.run import Run

    small = ["--backbone", "lite0", "--freeze-backbone", "--image-size", 64, "--short-side", 64]
    words = ["train", f"folder:{photos}", "--recipe", RECIPES / "table1" / "rank2.yaml", *small, "--epochs", 1]
    value = attnpool(*words, "--out", tmp_path / "a", "--json").value()
    assert value["epochs"] == 1
    about = Run.load(tmp_path / "a").about
    assert about["model"]["pooling_options"]["rank"] == 2
    assert (about["recipe"]["step_factor"], about["recipe"]["schedule"]) == (0.33, "step")
    refused(attnpool(*words, "--rank", 0, "--out", tmp_path / "b"), "rank")


@pytest.mark.parametrize("text", ["base: missing.yaml", "rank: two", "freeze-backbone: maybe", "epochs: 1.5"])
def test_a_recipe_with_a_mistake_is_refused(tmp_path: Path, text: str) -> None:
    path = write(tmp_path, r=text)
    words = text.partition(": ")[2] if text.startswith("base") else text.split(":")[0].replace("-", "_")
    refused(attnpool("train", "folder:x", "--out", tmp_path / "out", "--recipe", path), tmp_path, words)
    assert not (tmp_path / "out").exists()


def test_joints_that_are_not_there_are_missed(tmp_path: Path, photos: Path) -> None:
    command = ["train", f"folder:{photos}", "--out", tmp_path / "run", "--image-size", 64, "--epochs", 1]
    refused(attnpool(*command, "--pooling", "pose"), "no image of train has joints", "attnpool pose", "--pose-weight 0")
    attnpool(*command, "--pooling", "pose", "--pose-weight", 0).text()


def test_a_run_is_not_written_into_its_images(photos: Path) -> None:
    words = ["train", f"folder:{photos}", "--image-size", 64, "--epochs", 1, "--out"]
    before = sorted(photos.rglob("*"))
    refused(attnpool(*words, photos / "run"), photos / "run", "is in the folder of the images")
    refused(attnpool(*words, photos), photos, "holds files that are not by attnpool")
    assert sorted(photos.rglob("*")) == before
