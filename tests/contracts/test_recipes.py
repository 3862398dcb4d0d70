"""What every packaged recipe must obey: it can be run, says what it costs, quotes the paper, and trains as that did."""

from __future__ import annotations

import math
import re
from functools import cache
from pathlib import Path

import pytest

from attnpool.cli.main import parse
from attnpool.cli.verbs import VERBS
from attnpool.experiments.paper.tables import TABLES, plan
from attnpool.pooling import POOLINGS
from attnpool.pooling.options import resolved_options
from attnpool.training.config import OptimizerOptions, Options
from attnpool.training.recipe import RECIPES, Recipe, read_recipe

ROWS = [(table, row) for table, about in TABLES.items() for row in about.rows]
NAMES = [f"{table}/{row}" for table, row in ROWS]
BASES = ["mpii", "hico", "hmdb51"]

# Tables 1 to 3 and the text of Sec. 4, what the paper's authors trained themselves, copied out by hand; in percent.
PAPER: dict[str, dict[str, float]] = {
    "table1/bn-inception": {"val": 25.2},
    "table1/resnet101": {"val": 26.2},
    "table1/bn-inception-attention": {"val": 24.3},
    "table1/resnet101-attention": {"val": 30.3},
    "table1/resnet101-attention-test": {"test": 36.0},
    "table1/resnet101-pose": {"val": 30.6},
    "table1/resnet101-pose-test": {"test": 36.1},
    "table1/rank2": {"val": 29.9},
    "table1/rank5": {"val": 30.0},
    "table1/per-class": {"val": 27.9},
    "table1/dropout-average": {},
    "table1/dropout-attention": {},
    "table2/resnet101": {"test": 30.2},
    "table2/cbp": {"test": 26.8},
    "table2/attention": {"test": 35.0},
    "table2/pose": {"test": 34.6},
    "table3/resnet101": {"split1": 48.2, "split2": 46.5, "split3": 46.7, "mean": 47.1},
    "table3/attention": {"split1": 51.1, "split2": 51.6, "split3": 49.7, "mean": 50.8},
    "table3/pose": {"split1": 54.4, "split2": 51.1, "split3": 50.9, "mean": 52.2},
    "table3/resnet101-224": {},
    "table3/attention-224": {},
    "table3/pose-224": {},
}
# The published sizes of the training parts (official-code.md), updates of 128, and the rate's steps.
LENGTHS = {
    "mpii": (8219, 12000, 5000, 0.33),
    "hico": (38116, 12000, 5000, 0.1),
    "hmdb51": (3570, 3500, 1500, 0.1),
}
POOLING = {
    "bn-inception": "average",
    "resnet101": "average",
    "resnet101-224": "average",
    "dropout-average": "average",
    "cbp": "compact_bilinear",
    "pose": "pose",
    "pose-224": "pose",
    "resnet101-pose": "pose",
    "resnet101-pose-test": "pose",
}


def path_of(table: str, row: str) -> Path:
    return RECIPES / table / f"{row}.yaml"


@cache
def recipe_of(table: str, row: str) -> Recipe:
    return read_recipe(path_of(table, row))


def full(table: str, row: str) -> Options:
    return recipe_of(table, row).at("full")


def small(table: str, row: str) -> Options:
    return recipe_of(table, row).at("small")


def test_every_row_has_a_file_and_every_file_a_row() -> None:
    assert {str(path.relative_to(RECIPES).with_suffix("")) for path in RECIPES.rglob("*.yaml")} == {*NAMES, *BASES}
    assert set(NAMES) == set(PAPER)


def its_head_can_be_built_at_both_scales(table: str, row: str) -> None:
    for options in (full(table, row), small(table, row)):
        POOLINGS[options.model["pooling"]](8, 3, **options.model["pooling_options"])


def it_opens_with_its_command(table: str, row: str) -> None:
    first = path_of(table, row).read_text(encoding="utf-8").splitlines()[0]
    data = TABLES[table].data
    weights = " --weights bn_inception=FILE" if row.startswith("bn-inception") else ""  # they are in no package
    assert first == f"# attnpool reproduce {table} --{data} ROOT --rows {row}{weights} --out runs/{table}"
    verb, *words = first.removeprefix("# attnpool ").split()
    calls, _ = parse(verb, VERBS[verb], words)
    (given,) = calls.values()
    assert (given["table"], given["rows"], given.get("scale", "full")) == (table, [row], "full")
    assert [f" --weights {word}" for word in given.get("weights", ())] == ([weights] if weights else [])
    assert (Path(given[data]), Path(given["out"])) == (Path("ROOT"), Path("runs") / table)
    assert [recipe.name for recipe in plan(table, given["rows"], "full")[0]] == [row]
    assert recipe_of(table, row).about["data"] == data


def it_says_what_it_costs(table: str, row: str) -> None:
    second = path_of(table, row).read_text(encoding="utf-8").splitlines()[1]
    base = re.match(r"# Cost: see \.\./(\w+)\.yaml\. The paper: ", second)
    assert base, second
    assert base[1] == TABLES[table].data
    comment = (RECIPES / f"{base[1]}.yaml").read_text(encoding="utf-8")
    cost = re.search(r"^# Cost: (\d+) epochs of (\d+) images|^# Cost: (\d+) epochs of (\d+) clips", comment, re.M)
    assert cost, comment
    epochs, samples = (int(number) for number in cost.groups() if number)
    assert (epochs, samples) == (full(table, row).train.epochs, LENGTHS[base[1]][0])
    millions = epochs * samples * (full(table, row).preprocessing.segments if base[1] == "hmdb51" else 1) / 1e6
    assert f"{millions:.1f} million forward and backward passes" in comment.replace("\n# ", " ")


def it_quotes_the_paper(table: str, row: str) -> None:
    expected = PAPER[f"{table}/{row}"]
    assert recipe_of(table, row).about["paper"] == expected
    second = path_of(table, row).read_text(encoding="utf-8").splitlines()[1].split("The paper: ")[1]
    assert [float(number) for number in re.findall(r"\d\d\.\d", second)] == list(expected.values())
    if not expected:
        assert second.startswith(("not in it", "no number"))


def it_trains_as_the_paper_did(table: str, row: str) -> None:
    options, data = full(table, row), TABLES[table].data
    samples, updates, step, factor = LENGTHS[data]
    train, optimizer, view = options.train, options.optimizer, options.preprocessing
    assert train.batch_size * train.accumulate == 128
    assert train.epochs is not None
    assert abs(train.epochs * samples / 128 - updates) <= samples / 128  # to an epoch
    counted = train.epochs * math.ceil(math.ceil(samples / train.batch_size) / train.accumulate)  # as the trainer does
    assert abs(counted - updates) < 0.02 * updates
    expected = OptimizerOptions(
        "sgd", 1e-3, None, 5e-4, "step", 0.0, step_updates=step, step_factor=factor, clip=None, ema=0.0
    )
    assert optimizer == expected
    assert (train.precision, train.class_weights, train.label_smoothing, train.patience) == ("fp32", "none", 0.0, 0)
    assert (train.pose_weight, train.pose_target) == (1.0, "disc")
    assert train.loss == ("random_positive" if data == "hico" else "auto")
    assert train.trainval == row.endswith("-test")
    assert (view.image_size, view.short_side) == ((224, 256) if row.endswith("-224") else (450, 480))
    assert (view.max_width, view.squash) == ((512, False) if data == "mpii" else (None, True))
    assert (view.flip, view.color_jitter, view.random_resized_crop) == (0.5, 0.0, False)
    assert (view.segments, view.frames) == (3, 25)
    assert options.model["backbone"] == ("bn_inception" if row.startswith("bn-inception") else "resnet101.tv_in1k")
    assert (options.model["weights"], options.model["freeze_backbone"]) == ("pretrained", False)


def its_head_is_the_papers(table: str, row: str) -> None:
    model = full(table, row).model
    assert model["pooling"] == POOLING.get(row, "attentional")
    expected: dict[str, object] = {}  # average pooling drops nothing
    if model["pooling"] in ("attentional", "pose"):
        expected["init"] = "official"
        if row != "dropout-attention":
            expected |= {"dropout": 0.8, "dropout_on": "positions"}
    elif row in ("cbp", "dropout-average"):
        expected["dropout"] = 0.8
    if row == "cbp":
        expected["dim"] = 2048
    if row in ("rank2", "rank5"):
        expected["rank"] = int(row[-1])
    if row == "per-class":
        expected["per_class"] = True
    defaults = resolved_options(POOLINGS, model["pooling"], {})
    assert defaults | model["pooling_options"] == defaults | expected


def in_small_it_differs_in_nothing_that_the_row_is_about(table: str, row: str) -> None:
    large, little = full(table, row), small(table, row)
    if row.startswith("bn-inception"):
        assert recipe_of(table, row).about["small"] is False
        return
    kept = {name: little.model[name] for name in ("backbone", "weights", "freeze_backbone")}
    assert kept == {"backbone": "lite0", "weights": "pretrained", "freeze_backbone": True}
    assert little.model["pooling"] == large.model["pooling"]
    for name in ("rank", "per_class", "activation", "dim", "signed_sqrt", "l2"):
        found, expected = (options.model["pooling_options"].get(name) for options in (little, large))
        assert found == expected, name
    for name in ("loss", "trainval", "pose_target", "pose_weight", "class_weights"):
        assert getattr(little.train, name) == getattr(large.train, name), name
    assert little.model["pooling_options"].get("dropout") == (0.8 if row.startswith("dropout-") else None)
    assert (little.preprocessing.image_size, little.preprocessing.squash) == (
        224 if row.endswith("-224") else 448,
        False,
    )
    same = [small(table, other) for other in TABLES[table].rows if other.endswith("-224") == row.endswith("-224")]
    assert all(
        (o.preprocessing, o.train.epochs) == (little.preprocessing, little.train.epochs) for o in same
    )  # rows can be compared


@pytest.mark.parametrize(("table", "row"), ROWS, ids=NAMES)
def test_recipe(table: str, row: str) -> None:
    its_head_can_be_built_at_both_scales(table, row)
    it_opens_with_its_command(table, row)
    it_says_what_it_costs(table, row)
    it_quotes_the_paper(table, row)
    it_trains_as_the_paper_did(table, row)
    its_head_is_the_papers(table, row)
    in_small_it_differs_in_nothing_that_the_row_is_about(table, row)


@pytest.mark.parametrize("table", TABLES)
def test_rows_of_a_table_share_data_metric_and_title(table: str) -> None:
    recipes = [recipe_of(table, row) for row in TABLES[table].rows]
    assert {recipe.about["metric"] for recipe in recipes} == {
        {"mpii": "mAP", "hico": "mAP_voc07", "hmdb51": "accuracy"}[TABLES[table].data]
    }
    titles = [recipe.about.get("small-row", recipe.about["row"]) for recipe in recipes]
    assert len(set(titles)) == len(titles)
