"""Files as an enemy or a broken disk would change them, for fuzz tests of readers."""

from __future__ import annotations

import contextlib
import copy
import json
from collections.abc import Callable, Iterator
from typing import Any

from hypothesis import strategies as st

from reelmill.errors import ReelmillError

ODD = (
    None, True, -1, 0, 1, 2**31, 2**63, 10**40, -(2**63) - 1, 0.5, float("nan"), float("inf"), "",
    "..", "../../etc/passwd", "/etc/passwd", "a" * 5000, "\x00", "\udcff", [], {}, [[]], {"": None},
    [None] * 50, "!!python/object/apply:os.system",
)  # fmt: skip

_LEAVE_OUT = object()


def allowed(read: Callable[[], Any]) -> None:
    """Reads; of errors only ours may come out."""
    with contextlib.suppress(ReelmillError):
        read()


@st.composite
def damaged(draw: st.DrawFn, data: bytes) -> bytes:
    """Bytes with one to four changes: bits flipped, parts cut out, put in, doubled, cut off."""
    changed = bytearray(data)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(0, len(changed) - 1)))
        length = draw(st.integers(1, 64))
        match draw(st.sampled_from(("flip", "set", "cut", "insert", "double", "end"))):
            case "flip" if changed:
                changed[at] ^= 1 << draw(st.integers(0, 7))
            case "set" if changed:
                changed[at : at + 8] = draw(st.sampled_from((b"\xff" * 8, bytes(8), b"\x7f" * 8)))
            case "cut":
                del changed[at : at + length]
            case "insert":
                changed[at:at] = draw(st.binary(min_size=1, max_size=64))
            case "double":
                changed[at:at] = changed[at : at + length]
            case "end":
                del changed[at:]
    return bytes(changed)


@st.composite
def twisted(draw: st.DrawFn, text: str | bytes) -> bytes:
    """JSON with one to three of its values replaced by odd ones, dropped or added to."""
    value = copy.deepcopy(json.loads(text))
    for _ in range(draw(st.integers(1, 3))):
        places = _places(value)
        if not places:
            break
        holder, key = places[draw(st.integers(0, len(places) - 1))]
        match draw(st.sampled_from(("odd", "drop", "add"))):
            case "odd":
                holder[key] = copy.deepcopy(draw(st.sampled_from(ODD)))
            case "drop":
                del holder[key]
            case "add" if isinstance(holder, dict):
                name = draw(st.sampled_from(("extra", "../x", "")))
                holder[name] = copy.deepcopy(draw(st.sampled_from(ODD)))
    return json.dumps(value).encode()


def every_twist(text: str | bytes) -> Iterator[bytes]:
    """JSON with one value replaced: every value by every odd one, and left out."""
    count = len(_places(json.loads(text)))
    for place in range(count):
        for odd in (*ODD, _LEAVE_OUT):
            value = json.loads(text)
            holder, key = _places(value)[place]
            if odd is _LEAVE_OUT:
                del holder[key]
            else:
                holder[key] = odd
            yield json.dumps(value).encode()


def _places(value: Any) -> list[tuple[Any, Any]]:
    """(container, key) of every value inside."""
    keys = value.keys() if isinstance(value, dict) else range(len(value))
    found = []
    for key in list(keys) if isinstance(value, dict | list) else ():
        found.append((value, key))
        if isinstance(value[key], dict | list):
            found += _places(value[key])
    return found
