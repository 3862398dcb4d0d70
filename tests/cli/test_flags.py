"""Flags made of options: what can be typed, what help says, and mistakes in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from attnpool.cli.flags import Parser, add_flag, described, merged
from attnpool.cli.signatures import REQUIRED, Option

OPTIONS = [
    Option("source", REQUIRED, "what to read", str, keyword=False),
    Option("count", 3, "how many, at 100%", int),
    Option("rate", None, "how fast (default: by count)", float),
    Option("kind", "a", "which", str, choices=("a", "b")),
    Option("quick", False, "or not", bool),
    Option("seeds", (0, 1), "seeds", int, many=True),
    Option("class_", None, "class to show", str),
]


def parser() -> Parser:
    made = Parser(prog="attnpool")
    for option in OPTIONS:
        add_flag(made, option)
    return made


def parse(*words: str) -> dict[str, Any]:
    return vars(parser().parse_args(words))


def test_what_was_given_is_known() -> None:
    assert parse("x") == {"source": "x"}
    words = ("x", "--count", "3", "--rate", "1e-3", "--kind", "b", "--quick", "--seeds", "4", "5", "--class", "c")
    given = {"source": "x", "count": 3, "rate": 1e-3, "kind": "b", "quick": True, "seeds": [4, 5], "class_": "c"}
    assert parse(*words) == given
    assert parse("x", "--quick", "--no-quick") == {"source": "x", "quick": False}


@pytest.mark.parametrize(
    "words", [("--count", "x"), ("--count", "1.5"), ("--kind", "c"), ("--rate",), ("--speed", "3"), ("--seeds",)]
)
def test_errors_are_one_line(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse("x", *words)
    assert ended.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert words[0] in err
    assert err.endswith("see attnpool --help\n")


def test_help_says_defaults_once() -> None:
    text = " ".join(parser().format_help().split())
    assert "how many, at 100% (default: 3)" in text
    assert "how fast (default: by count)" in text
    assert "or not (default: no)" in text
    assert "seeds (default: 0 1)" in text
    assert "None" not in text


@pytest.mark.parametrize(
    ("default", "text"),
    [(1, "x (default: 1)"), (0, "x (default: 0)"), (True, "x (default: yes)"), (None, "x"), ((), "x"), (REQUIRED, "x")],
)
def test_defaults(default: Any, text: str) -> None:
    assert described("x", default) == text


def test_options_of_several_owners() -> None:
    shared = Option("bias", True, "whether there is one", bool)
    first = [shared, Option("dim", 8, "length of the sketch", int)]
    second = [shared, Option("dim", None, "length of the values (default: as many as channels)", int)]
    assert [option.name for option in merged({"one": first, "two": second})] == ["bias", "dim"]
    bias, dim = merged({"one": first, "two": second})
    assert (bias.help, bias.default) == ("whether there is one (default: yes)", ())
    assert dim.help == (
        "one: length of the sketch (default: 8); two: length of the values (default: as many as channels)"
    )
    (bias, _) = merged({"one": first, "two": second, "three": []})
    assert bias.help == "one, two: whether there is one (default: yes)"


def test_what_cannot_be_typed_is_a_defect() -> None:
    for option in (Option("model", None, "a model", None), Option("size", 3, "", int)):
        with pytest.raises(AssertionError, match=option.name):
            add_flag(Parser(), option)
    with pytest.raises(AssertionError, match="dim has several types"):
        merged({"one": [Option("dim", 8, "a", int)], "two": [Option("dim", Path(), "a", Path)]})
