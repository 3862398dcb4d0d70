"""`attnpool benchmark`: small forms of both benchmarks, run for real, and what they write."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import Outcome, attnpool, refused

from attnpool.experiments.benchmark import PoolingBenchmark, Sizes, benchmark_pooling
from attnpool.experiments.benchmark.heads import LAYOUTS, LIMITS, PASSES, PROBE, REFERENCE, USUAL_PROBE, catalogue
from attnpool.experiments.benchmark.measure import peak_memory
from attnpool.pooling import POOLINGS

CPU = torch.device("cpu")
TINY = Sizes(2, 32, 4, 5)
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def pooling(tmp_path_factory: pytest.TempPathFactory) -> tuple[Outcome, Path]:
    out = tmp_path_factory.mktemp("pooling")
    return attnpool("benchmark", "pooling", "--quick", "--rounds", 1, "--threads", 1, "--out", out, "--json"), out


def test_every_head_in_every_layout(pooling: tuple[Outcome, Path]) -> None:
    outcome, out = pooling
    found = outcome.value()
    assert found == json.loads((out / "pooling.json").read_text())
    assert {row["family"] for row in found["rows"] if row["ours"]} == set(POOLINGS)
    rows = {(row["head"], row["layout"], row["pass"]): row for row in found["rows"]}
    assert len(rows) == len(found["rows"])
    for name in {row["head"] for row in found["rows"]}:
        there = {at[1:] for at in rows if at[0] == name}
        layouts = LAYOUTS[:2] if name.endswith("Pool2d") else LAYOUTS
        assert there == {(layout, which) for layout in layouts for which in PASSES}
    for row in found["rows"]:
        assert row["ms"] > 0
        assert row["ratio"] > 0
        assert row["peak_mib"] > 0
        assert row["parameters"] > 0
    for layout in LAYOUTS:
        for which in PASSES:
            assert rows[REFERENCE, layout, which]["ratio"] == 1
        # what is promised of memory: the gradient of the features, and little more
        attention = rows["attentional, rank 1", layout, PASSES[1]]["peak_mib"]
        assert attention < 2 * rows[REFERENCE, layout, PASSES[1]]["peak_mib"]
    assert found["limits"] == []  # of other sizes
    assert found["rounds"] == 1
    assert found["machine"]["threads"] == 1


def test_page_and_plot(pooling: tuple[Outcome, Path]) -> None:
    outcome, out = pooling
    page = (out / "pooling.md").read_text()
    assert "`attnpool benchmark pooling --quick --rounds 1 --threads 1`" in page
    for row in outcome.value()["rows"]:
        assert page.count(f"| {row['head']} |") == 2  # a table of times and one of memory
    tables = [line for line in page.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in tables}) == 1
    assert "](pooling.png)" in page
    assert (out / "pooling.png").read_bytes().startswith(PNG)


def test_chosen_heads_and_layouts() -> None:
    text = attnpool(
        "benchmark", "pooling", "--quick", "--rounds", 1, "--heads", "max", "timm", "--layouts", "tokens"
    ).text()
    heads = [line.split("|")[1].strip() for line in text.splitlines() if line.startswith("| ")]
    assert heads == 2 * ["head", REFERENCE, "max", "timm AttentionPoolLatent"]
    assert "NCHW" not in text


@pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs a C++ compiler")
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")  # torch's own, while it generates code
def test_compiled() -> None:
    found = benchmark_pooling(
        sizes=TINY, rounds=1, heads=["average", "max"], layouts=["NHWC"], compiled=["average"], progress=False
    )
    heads = {row["head"] for row in found.results["rows"]}
    assert "average, compiled" in heads
    assert {head for head in heads if head.endswith(", compiled")} == {f"{REFERENCE}, compiled", "average, compiled"}
    (eager, fast) = (found.find(name, "NHWC", PASSES[1]) for name in (REFERENCE, f"{REFERENCE}, compiled"))
    assert eager is not None
    assert fast is not None
    assert eager["parameters"] == fast["parameters"]


def test_limits_are_of_heads_that_there_are() -> None:
    """At the sizes of the issue; the figures themselves are in docs/benchmarks."""
    entries, left_out = catalogue(Sizes(), ())
    names = {entry.name for entry in entries}
    promised = {limit.head for limit in LIMITS} | {limit.against for limit in LIMITS}
    assert promised - names <= (set() if "multi_query" in POOLINGS else {PROBE, USUAL_PROBE})
    assert set(left_out) == {"bilinear"}
    assert "6.1 GiB" in left_out["bilinear"]


def test_promises_are_held_against_the_figures() -> None:
    row = {"head": "a", "against": "b", "layout": "NCHW", "pass": "forward", "most": 2.0}
    results: dict[str, Any] = {
        "limits": [{**row, "measured": 1.5, "holds": True}, {**row, "measured": 3.0, "holds": False}]
    }
    lines = PoolingBenchmark(results).limits().splitlines()
    assert [line.split("|")[-2].strip() for line in lines[2:]] == ["yes", "no"]


def test_memory_is_what_a_step_holds_at_one_time() -> None:
    def step() -> None:
        for _ in range(3):  # one after the other
            torch.zeros(2**20, dtype=torch.uint8)
        both = torch.zeros(2**20, dtype=torch.uint8), torch.zeros(2**19, dtype=torch.uint8)
        del both

    assert peak_memory(step, CPU) == 2**20 + 2**19


def test_training(tmp_path: Path) -> None:
    words = ("benchmark", "training", "--quick", "--rounds", 1, "--threads", 1, "--pooling", "max")
    found = attnpool(*words, "--out", tmp_path, "--json").value()
    assert found == json.loads((tmp_path / "training.json").read_text())
    rows = {row["name"]: row for row in found["rows"]}
    assert len(rows) == 5
    for row in rows.values():
        assert math.isclose(row["images_per_s"], 1e3 * found["sizes"]["batch"] / row["ms"])
    assert rows["plain timm + PyTorch loop"]["ratio"] == 1
    assert found["feature_shape"] == [512, 1, 1]
    assert rows["attnpool, head on cached features"]["ms"] < rows["attnpool, whole network"]["ms"]
    page = (tmp_path / "training.md").read_text()
    assert "`attnpool benchmark training --quick --rounds 1 --threads 1 --pooling max`" in page
    assert (tmp_path / "training.png").read_bytes().startswith(PNG)
    for name in rows:
        assert f"| {name} |" in page


def test_options_that_cannot_be() -> None:
    refused(attnpool("benchmark", "pooling", "--heads", "maximum"), "maximum", "attentional", "timm")
    refused(attnpool("benchmark", "pooling", "--layouts", "NCWH"), "NCWH", "NHWC")
    refused(attnpool("benchmark", "pooling", "--rounds", 0), "--rounds is 0", "at least 1")
    refused(attnpool("benchmark", "pooling", "--quick", "--threads", 0), "--threads is 0", "at least 1")
    refused(attnpool("benchmark", "pooling", "--batch-size", 4), "--batch-size", "benchmark training")
    refused(attnpool("benchmark", "training", "--heads", "max"), "--heads", "benchmark pooling")
    refused(attnpool("benchmark", "training", "--quick", "--batch-size", 0), "--batch-size is 0")
    refused(attnpool("benchmark", "training", "--quick", "--pooling", "maximum"), "maximum", "attentional")
    refused(attnpool("benchmark", "training", "--quick", "--backbone", "resnet51"), "resnet51")
    refused(attnpool("benchmark", "everything"), "pooling", "training")


@pytest.mark.skipif(torch.cuda.is_available(), reason="is about machines without a GPU")
def test_without_a_gpu() -> None:
    refused(attnpool("benchmark", "pooling", "--quick", "--device", "cuda"), "--device cuda", "cpu")
