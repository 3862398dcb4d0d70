"""Tables of the paper's numbers beside ours: means, spreads and comparisons against numbers worked out by hand."""

from __future__ import annotations

from typing import Any

import pytest

from attnpool.experiments.paper.tables import averaged, comparisons, notes, result_page, table_of, values_of


def training(seed: int, split: str = "", **scores: Any) -> dict[str, Any]:
    return {"seed": seed, "split": split, "run": f"runs/{seed}", **scores}


def results(rows: list[dict[str, Any]], metric: str = "mAP", **changes: Any) -> dict[str, Any]:
    seeds = sorted({t["seed"] for row in rows for t in row["trainings"]})
    return {
        "table": "table1",
        "title": "Table 1: a title",
        "scale": "full",
        "seeds": seeds,
        "data": "data/mpii",
        "metric": metric,
        "rows": rows,
        "skipped": {},
        "complete": True,
    } | changes


def row(name: str, title: str, paper: dict[str, float], *trainings: dict[str, Any]) -> dict[str, Any]:
    return {"row": name, "title": title, "paper": paper, "trainings": list(trainings)}


MPII = results(
    [
        row(
            "resnet101", "ResNet101", {"val": 26.2},
            training(0, mAP=0.25, accuracy=0.5, pointing=0.1, train={"mAP": 0.9}, train_loss=0.1, similarity=0.25),
            training(1, mAP=0.27, accuracy=0.6, pointing=0.3, train={"mAP": 1.0}, train_loss=0.3, similarity=0.25),
        ),
        row(
            "resnet101-attention", "Attn. Pool. (R-101)", {"val": 30.3},
            training(0, mAP=0.31, accuracy=0.5, pointing=None, train={"mAP": None}, train_loss=0.1, similarity=0.25),
            training(1, mAP=0.30, accuracy=0.5, pointing=None, train={"mAP": 0.5}, train_loss=0.1, similarity=0.25),
        ),
        row("rank2", "rank 2", {}, training(0, train_loss=0.5, submission="runs/0/submission.mat")),
    ]
)  # fmt: skip
SPLITS = [
    row(
        "resnet101", "TSN", {"split1": 48.2, "split2": 46.5, "mean": 47.1},
        training(0, "split1", accuracy=0.40), training(1, "split1", accuracy=0.50),
        training(0, "split2", accuracy=0.50), training(1, "split2", accuracy=0.40),
    ),
    row(
        "attention", "Linear", {},
        training(0, "split1", accuracy=0.40), training(1, "split1", accuracy=0.60),
        training(0, "split2", accuracy=0.60),
    ),
]  # fmt: skip
HMDB51 = results(SPLITS, "accuracy", table="table3")


# numbers


def test_values_are_in_percent_where_they_are_scores() -> None:
    trainings = MPII["rows"][0]["trainings"]
    assert values_of(trainings, "mAP") == [25.0, 27.0]
    assert values_of(trainings, "train mAP") == [90.0, 100.0]
    assert values_of(trainings, "train loss") == [0.1, 0.3]
    assert values_of(trainings, "known_object") == []
    assert values_of(MPII["rows"][1]["trainings"], "train mAP") == [50.0]
    assert values_of(MPII["rows"][2]["trainings"], "train mAP") == []
    assert values_of(SPLITS[0]["trainings"], "accuracy", "split2") == [50.0, 40.0]


def test_means_over_splits_come_before_the_spread_over_seeds() -> None:
    assert averaged(SPLITS[0]["trainings"], "accuracy") == {0: 45.0, 1: 45.0}  # splits differ, seeds do not
    assert averaged(SPLITS[1]["trainings"], "accuracy") == {0: 50.0, 1: 60.0}
    assert averaged(MPII["rows"][2]["trainings"], "mAP") == {}


# tables


def test_a_table_of_images() -> None:
    header, rows = table_of(MPII)
    assert header == [
        "row", "paper, val", "mAP", "accuracy", "pointing", "mAP on train", "loss on train", "similarity",
    ]  # fmt: skip
    assert rows == [
        ["ResNet101", "26.2", "26.0 ± 1.4", "55.0 ± 7.1", "20.0 ± 14.1", "95.0 ± 7.1", "0.200 ± 0.141",
         "0.250 ± 0.000"],
        ["Attn. Pool. (R-101)", "30.3", "30.5 ± 0.7", "50.0 ± 0.0", "-", "50.0", "0.100 ± 0.000", "0.250 ± 0.000"],
        ["rank 2", "-", "-", "-", "-", "-", "0.500", "-"],
    ]  # fmt: skip


def test_a_table_of_splits() -> None:
    header, rows = table_of(HMDB51)
    assert header == [
        "row", "paper, split1", "paper, split2", "paper, mean", "split1", "split2", "mean", "loss on train",
        "similarity",
    ]  # fmt: skip
    assert rows == [
        ["TSN", "48.2", "46.5", "47.1", "45.0 ± 7.1", "45.0 ± 7.1", "45.0 ± 0.0", "-", "-"],
        ["Linear", "-", "-", "-", "50.0 ± 14.1", "60.0", "55.0 ± 7.1", "-", "-"],
    ]


def test_val_stands_before_test_and_only_what_the_paper_has() -> None:
    both = results([row("a", "A", {"test": 36.0}), row("b", "B", {"val": 30.3})])
    assert table_of(both)[0][:3] == ["row", "paper, val", "paper, test"]
    assert [cells[:3] for cells in table_of(both)[1]] == [["A", "-", "36.0"], ["B", "30.3", "-"]]
    assert table_of(results([row("a", "A", {})]))[0][:2] == ["row", "mAP"]


def test_hicos_two_settings() -> None:
    one = training(0, mAP_voc07=0.25, known_object=0.5, train={"mAP": 1.0}, train_loss=2.0, similarity=0.5)
    header, rows = table_of(results([row("cbp", "CBP", {"test": 26.8}, one)], "mAP_voc07"))
    assert header[1:4] == ["paper, test", "mAP (11 points)", "Known-Object"]
    assert rows == [["CBP", "26.8", "25.0", "50.0", "100.0", "2.000", "0.500"]]


# comparisons


def test_what_attention_adds_seed_by_seed() -> None:
    assert comparisons(MPII) == ["ResNet101 26.0 ± 1.4 < 30.5 ± 0.7 Attn. Pool. (R-101): +4.5 ± 2.1"]  # 6 and 3
    assert comparisons(HMDB51) == ["TSN 45.0 ± 0.0 < 55.0 ± 7.1 Linear: +10.0 ± 7.1"]  # 5 and 15


def test_what_attention_does_not_add_is_said_too() -> None:
    rows = [
        row("attention", "A", {}, training(0, mAP=0.4), training(1, mAP=0.4)),
        row("pose", "P", {}, training(0, mAP=0.2), training(2, mAP=0.9)),
    ]
    assert comparisons(results(rows)) == ["A 40.0 ± 0.0 >= 55.0 ± 49.5 P: -20.0"]  # one seed is shared
    rows[1]["trainings"] = [training(0, mAP=0.4)]
    assert comparisons(results(rows)) == ["A 40.0 ± 0.0 >= 40.0 P: +0.0"]
    rows[1]["trainings"] = [training(7, mAP=0.4)]
    assert comparisons(results(rows)) == []


# pages


def test_text_is_aligned() -> None:
    text = result_page(MPII).text()
    lines = text.splitlines()
    assert lines[:2] == ["Table 1: a title", ""]
    header, *rows = lines[2:6]
    assert len({len(line) for line in (header, *rows)}) == 1
    for title in ("paper, val", "mAP", "accuracy", "similarity"):
        end = header.index(f" {title} " if title == "mAP" else title) + len(title) + (title == "mAP")
        assert all(line[end - 1] != " " and line[end : end + 1] in ("", " ") for line in rows), title
    assert [line.split()[0] for line in rows] == ["ResNet101", "Attn.", "rank"]
    assert lines[6:9] == ["", *comparisons(MPII), ""]
    assert lines[9:] == notes(MPII)
    assert (
        result_page(results([row("a", "A", {}, training(0, mAP=0.5))])).text().count("\n\n") == 2
    )  # nothing to compare


@pytest.mark.parametrize("content", [MPII, HMDB51], ids=["images", "splits"])
def test_markdown_is_a_table_of_the_same_cells(content: dict[str, Any]) -> None:
    page = result_page(content).markdown()
    assert page.startswith(f"# {content['title']}\n\n| row |")
    header, rule, *rows = [line for line in page.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in (header, *rows)]
    names, expected = table_of(content)
    assert cells == [names, *expected]
    assert rule == "|---|" + "---:|" * (len(names) - 1)
    for line in (*(f"- {line}" for line in comparisons(content)), *notes(content)):
        assert f"\n{line}\n" in page
    assert "\n\n\n" not in page
    assert page.endswith((".\n", "submission.mat\n"))


def test_notes() -> None:
    said = "\n".join(notes(MPII))
    assert "Scale full, data data/mpii; percent, mean ± standard deviation over seeds 0, 1." in said
    assert "server (labels of the test part are not public): runs/0/submission.mat" in said
    assert "playground" not in said
    assert "Not complete" not in said
    one = results([row("a", "A", {}, training(4))], scale="small", complete=False, skipped={"b": "it is big"})
    said = "\n".join(notes(one))
    assert "one seed." in said
    assert "the paper's numbers are of other data and another network" in said
    assert "Row b is not here: it is big." in said
    assert "Not complete: the same command goes on." in said
