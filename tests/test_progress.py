"""Progress bars go to standard error alone, and count from where an earlier call ended."""

from __future__ import annotations

import pytest

from attnpool.progress import bar


def test_a_bar(capsys: pytest.CaptureFixture[str]) -> None:
    with bar(10, "looking", "images", done=4) as shown:
        assert (shown.n, shown.total) == (4, 10)
        shown.update(6)
    out, err = capsys.readouterr()
    assert out == ""
    assert "looking" in err
    assert "10/10" in err


def test_a_hidden_bar(capsys: pytest.CaptureFixture[str]) -> None:
    with bar(10, "looking", "images", hidden=True) as shown:
        shown.update(10)
    assert capsys.readouterr() == ("", "")
