"""The verbs: the summary and an example of each, and the library function whose signature gives its flags."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from attnpool.cli.flags import merged
from attnpool.cli.signatures import REQUIRED, Option, Source

SOURCE = Source(Path(__file__).parents[2])
Groups = dict[str, list[Option]]


def options(function: str) -> list[Option]:
    """The parameters of `module:name` that a command line can give; the others are for use from Python."""
    found = SOURCE.options(*function.split(":"))
    return [option for option in found if option.type is not None and option.name not in ("progress", "maps")]


def poolings() -> dict[str, list[Option]]:
    """The options of every pooling, from `POOLINGS` and the constructors."""
    _, table = SOURCE.find("attnpool.pooling", "POOLINGS")
    heads = {
        key.value: options(f"attnpool.pooling:{head.id}") for key, head in zip(table.keys, table.values, strict=True)
    }
    return {key: [option for option in found if option.default is not REQUIRED] for key, found in heads.items()}


def training_options() -> Groups:
    """The options of a training, by group."""
    heads = poolings()
    model = {option.name: option for option in options("attnpool.models.recognizer:Recognizer")}
    model["pooling"] = replace(model["pooling"], choices=(*heads, SOURCE.literal("attnpool.training.config", "AUTO")))
    return {
        "model": [model[name] for name in SOURCE.literal("attnpool.training.config", "MODEL")],
        "pooling": merged(heads),
        "training": options("attnpool.training.config:TrainOptions"),
        "optimizer": options("attnpool.training.config:OptimizerOptions"),
        "preprocessing": options("attnpool.data.preprocessing:Preprocessing"),
    }


def attention_options() -> Groups:
    """The options of attentional pooling."""
    return {"attention": poolings()["attentional"]}


@dataclass(frozen=True)
class Verb:
    """A verb of the command line.

    Attributes:
        summary: what the verb does.
        example: an example command.
        function: `module:name` of the library function, or word -> function where a word after the verb selects one.
        word: name of that word in the usage; a function with a parameter of this name gets the word.
        groups: further options, by the title of their group, which the function takes as one mapping.
        into: the function's parameter for that mapping.
        before: `module:name` of a function that is called first and refuses what it can, with options of the others.
        then: `module:name` of a function that is called with the result, and whose own result is printed.
    """

    summary: str
    example: str
    function: str | Mapping[str, str]
    word: str = ""
    groups: Callable[[], Groups] = dict
    into: str = ""
    before: str = ""
    then: str = ""


VERBS = {
    "quickstart": Verb(
        "train and compare three poolings on the generated playground, and write a report",
        "attnpool quickstart --out runs/quickstart",
        "attnpool.experiments.quickstart:quickstart",
    ),
    "playground": Verb(
        "generate a labelled dataset of drawn people who do things",
        "attnpool playground data/play --images 600 --seed 1",
        "attnpool.playground.playground:write_playground",
    ),
    "check": Verb(
        "read every image of a dataset and list the files that cannot be used",
        "attnpool check folder:data/play",
        "attnpool.data.check:check",
    ),
    "train": Verb(
        "train a recognizer; the same command continues where it was stopped",
        "attnpool train folder:data/play --out runs/a --pooling attentional --epochs 15",
        "attnpool.training.recipe:train_recipe",
        groups=training_options,
        into="options",
    ),
    "evaluate": Verb(
        "evaluate a run on a dataset",
        "attnpool evaluate runs/a folder:data/play",
        "attnpool.evaluation.evaluate:evaluate",
        before="attnpool.explain.drawn_evaluation:check_plot",
        then="attnpool.explain.drawn_evaluation:draw_evaluation",
    ),
    "predict": Verb(
        "name the actions in images and clips",
        "attnpool predict runs/a photo.jpg",
        "attnpool.evaluation.predict:predict",
    ),
    "explain": Verb(
        "draw where in an image or clip the evidence for its actions is",
        "attnpool explain runs/a photo.jpg --out explained/",
        "attnpool.explain.explain:explain_files",
    ),
    "shard": Verb(
        "write a dataset as WebDataset shards; the same command continues where it was stopped",
        "attnpool shard folder:photos shards/ --short-side 512",
        "attnpool.data.shards.write:shard",
    ),
    "pose": Verb(
        "label a dataset with the joints that a pose estimator finds; the same command continues where it was stopped",
        "attnpool pose folder:photos --estimator mediapipe",
        "attnpool.data.pose_labelling:label_pose",
    ),
    "convert": Verb(
        "replace the average pooling of a trained classifier by attention, without changing a prediction",
        "attnpool convert timm:resnet50 --out runs/resnet50",
        "attnpool.models.conversion.open_model:convert_to_run",
        groups=attention_options,
        into="pooling_options",
    ),
    "convert-tf": Verb(
        "convert a TensorFlow checkpoint of the paper's authors to a run",
        "attnpool convert-tf models/model.ckpt-12000 --variant pose --classes classes.txt --out runs/authors",
        "attnpool.models.conversion.tensorflow:convert_tf",
    ),
    "cache": Verb(
        "list, verify or prune the features that are kept of frozen backbones",
        "attnpool cache prune --max-size 20GB",
        {
            "list": "attnpool.features.housekeeping:list_cache",
            "verify": "attnpool.features.housekeeping:verify_cache",
            "prune": "attnpool.features.housekeeping:prune_cache",
        },
        word="what",
    ),
    "reproduce": Verb(
        "train the rows of a table of the paper, and compare the results with its numbers",
        "attnpool reproduce table1 --scale small --out runs/table1",
        {
            "table1": "attnpool.experiments.paper.reproduce:reproduce",
            "table2": "attnpool.experiments.paper.reproduce:reproduce",
            "table3": "attnpool.experiments.paper.reproduce:reproduce",
            "poolings": "attnpool.experiments.pooling_study.run:poolings",
        },
        word="table",
    ),
    "benchmark": Verb(
        "measure the speed of heads or training steps beside common implementations",
        "attnpool benchmark pooling --heads attentional timm --layouts NHWC",
        {
            "pooling": "attnpool.experiments.benchmark.pooling:benchmark_pooling",
            "training": "attnpool.experiments.benchmark.training:benchmark_training",
        },
        word="what",
    ),
}
