"""What options a pooling has, as its constructor declares them."""

from __future__ import annotations

import pytest

from attnpool.pooling import POOLINGS
from attnpool.pooling.options import options_of, resolved_options


def test_defaults_build_what_the_constructor_builds() -> None:
    for key, head in POOLINGS.items():
        options = resolved_options(POOLINGS, key, {})
        assert list(options) == list(options_of(head))
        assert "dropout" in options
        assert repr(head(8, 3, **options)) == repr(head(8, 3))


def test_what_is_given_replaces_a_default() -> None:
    before = resolved_options(POOLINGS, "attentional", {})
    assert resolved_options(POOLINGS, "attentional", {"rank": 3}) == before | {"rank": 3}


def test_errors_name_what_there_is() -> None:
    with pytest.raises(ValueError, match="unknown pooling 'maximum': use one of average, max, attentional"):
        resolved_options(POOLINGS, "maximum", {})
    with pytest.raises(ValueError, match="average pooling has no option rank: leave it out, or use pooling attention"):
        resolved_options(POOLINGS, "average", {"rank": 2})
    with pytest.raises(ValueError, match=r"average pooling has no option ranks: leave it out$"):
        resolved_options(POOLINGS, "average", {"ranks": 2})
