"""`attnpool benchmark pooling` in its small form, run for real, and what it writes."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import Outcome, attnpool, refused

from attnpool.experiments.benchmark import PoolingBenchmark, benchmark_pooling
from attnpool.experiments.benchmark.heads import (
    LAYOUTS,
    LIMITS,
    PASSES,
    PROBE,
    REFERENCE,
    USUAL_PROBE,
    Sizes,
    catalogue,
)
from attnpool.experiments.benchmark.measure import peak_memory
from attnpool.files import MARK
from attnpool.pooling import POOLINGS

CPU = torch.device("cpu")
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def pooling(tmp_path_factory: pytest.TempPathFactory) -> tuple[Outcome, Path]:
    out = tmp_path_factory.mktemp("pooling")
    return attnpool("benchmark", "pooling", "--quick", "--rounds", 1, "--threads", 1, "--out", out, "--json"), out


def test_every_head_in_every_layout(pooling: tuple[Outcome, Path]) -> None:
    outcome, out = pooling
    found = outcome.value()
    assert found | {MARK: MARK} == json.loads((out / "pooling.json").read_text())
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
        quick=True, rounds=1, heads=["average", "max"], layouts=["NHWC"], compile=["average"], progress=False
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


def test_options_that_cannot_be() -> None:
    def mistake(**options: Any) -> str:
        with pytest.raises(ValueError) as caught:
            benchmark_pooling(**options, progress=False)
        return str(caught.value)

    assert re.match(
        "heads maximum: there is no such pooling; use some of .*attentional.*timm", mistake(heads=["maximum"])
    )
    assert mistake(layouts=["NCWH"]) == "layouts NCWH: there is no such layout; use some of NCHW, NHWC, tokens"
    assert mistake(rounds=0) == "rounds is 0; give at least 1"
    assert mistake(quick=True, threads=0) == "threads is 0; give at least 1"


def test_options_of_the_other_benchmark() -> None:
    refused(attnpool("benchmark", "pooling", "--batch-size", 4), "--batch-size")
    refused(attnpool("benchmark", "everything"), "pooling", "training")


@pytest.mark.skipif(torch.cuda.is_available(), reason="is about machines without a GPU")
def test_without_a_gpu() -> None:
    with pytest.raises(ValueError, match="device cuda: PyTorch finds no CUDA device here; use device cpu"):
        benchmark_pooling(quick=True, device="cuda", progress=False)
