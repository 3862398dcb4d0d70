"""Which networks can be converted: one of every family of timm, and one of every family of torchvision.

    python benchmarks/convert.py --json docs/benchmarks/convert.json --table docs/benchmarks/convert.md

A family is a file of the library that holds networks. Of its networks a few are looked at and the smallest is built
with ten classes, random weights and random statistics of batch norm, and converted at the size it is made for. Nothing
is downloaded: what decides is how a network is put together. Of those that convert, the difference is that of the
logits on other random images, relative to the largest logit where that is beyond 1.
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import timm
import torch
import torchvision
from torch import nn

import attnpool as ap
from attnpool.backbones.classifiers import view_of
from attnpool.backbones.torchvision_features import torchvision_classifier
from attnpool.evaluation.tables import markdown_table
from attnpool.models.conversion.classifier import difference

LOOKED_AT = 6  # networks of a family whose sizes are compared
LARGEST = 140e6  # parameters; families whose smallest has more are left out
CLASSES = 10


def families() -> dict[tuple[str, str], list[str]]:
    """Library and file -> names of networks."""
    found = defaultdict(list)
    for name in timm.list_models():
        found["timm", timm.model_entrypoint(name).__module__.rpartition(".")[2]].append(name)
    for name in torchvision.models.list_models(module=torchvision.models):
        home = torchvision.models.get_model_builder(name).__module__.rpartition(".")[2]
        found["torchvision", home].append(name)
    return found


def build(library: str, name: str) -> Any:
    if library == "timm":
        return timm.create_model(name, num_classes=CLASSES)
    return torchvision_classifier(name, CLASSES)


def smallest(library: str, names: list[str]) -> str | None:
    """The network with the fewest parameters among some of a family; None if that is too large."""
    sizes = {}
    for name in names[:: -(-len(names) // LOOKED_AT)]:
        try:
            with torch.device("meta"):
                sizes[name] = sum(p.numel() for p in build(library, name).parameters())
        except (NotImplementedError, RuntimeError):  # some compute with tensors while they are built
            continue
    if not sizes:
        return names[0]
    found = min(sizes, key=lambda name: sizes[name])
    return found if sizes[found] <= LARGEST else None


def randomise(network: nn.Module, generator: torch.Generator) -> None:
    """As if trained: batch norm that does something, and scores that depend on the image."""
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None:
                module.running_mean.normal_(0, 0.1, generator=generator)
                module.running_var.uniform_(0.5, 2, generator=generator)
        for module in network.modules():
            if isinstance(module, nn.Linear) and module.out_features == CLASSES:
                module.weight.normal_(0, 0.05, generator=generator)


def outcome(library: str, name: str) -> dict[str, Any]:
    """What becomes of one network: the difference of the logits, or why not."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    network = build(library, name).eval()
    randomise(network, generator)
    size = view_of(network, 299 if name in ("inception_v3", "googlenet") else None)["image_size"]
    try:
        model = ap.convert(network, image_size=size)
    except ValueError as error:
        return {"converts": False, "why": str(error).partition("cannot be converted: ")[2] or str(error)}
    x = torch.randn(2, 3, size, size, generator=generator)
    with torch.inference_mode():
        apart = difference(model(x).logits, network(x))
    return {"converts": True, "difference": apart, "can_be_saved": model.backbone.named}


def reason(why: str) -> str:
    """The kind of an obstacle, for counting."""
    if "between its average pooling" in why:
        return f"a layer after the pooling: {why.partition('(')[2].partition(')')[0]}"
    for words, kind in (
        ("class token", "a class token is classified"),
        ("between its feature map", "layers between the feature map and the pooling"),
        ("classifier of other features", "several classifiers, of different features"),
        ("several kinds", "several classifiers, of different features"),
        ("single position", "a class token is classified"),
        ("attention pooling", "attention pooling already"),
        ("something else", "what is classified is no average of the last feature map"),
    ):
        if words in why:
            return kind
    return "another structure"


def table(results: list[dict[str, Any]]) -> str:
    """A Markdown page."""
    lines = [
        "# What converts",
        "",
        "Made by `python benchmarks/convert.py --json docs/benchmarks/convert.json --table docs/benchmarks/convert.md`"
        "; what is done stands in [convert.md](../convert.md).",
        "",
        "One network of every family, which is a file of the library; random weights. Families whose smallest network "
        f"has more than {LARGEST / 1e6:.0f} million parameters are left out.",
        "",
    ]
    for library in ("timm", "torchvision"):
        rows = [row for row in results if row["library"] == library]
        good = [row for row in rows if row["converts"]]
        worst = max(row["difference"] for row in good)
        lines += [
            f"## {library}",
            "",
            f"{len(good)} of {len(rows)} families convert, with logits that differ by {worst:.1g} at most. The others:",
            "",
        ]
        counts = Counter(reason(row["why"]) for row in rows if not row["converts"])
        lines += markdown_table(["why not", "families"], [[kind, str(count)] for kind, count in counts.most_common()])
        cells = [
            [
                row["family"],
                f"`{row['network']}`",
                *([f"{row['difference']:.0e}", ""] if row["converts"] else ["", row["why"]]),
            ]
            for row in sorted(rows, key=lambda row: (not row["converts"], row["family"]))
        ]
        lines += ["", *markdown_table(["family", "network", "difference", "or why not"], cells, "llrl"), ""]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--table", type=Path, required=True)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    results = []
    for (library, family), names in sorted(families().items()):
        name = smallest(library, names)
        if name is None:
            print(f"{family}: left out, too large", flush=True)
            continue
        results.append({"library": library, "family": family, "network": name} | outcome(library, name))
        print(results[-1], flush=True)
    versions = {"timm": timm.__version__, "torchvision": torchvision.__version__, "torch": torch.__version__}
    args.json.write_text(json.dumps({"versions": versions, "results": results}, indent=1) + "\n")
    args.table.write_text(table(results))


if __name__ == "__main__":
    main()
