"""JSON becomes a dataclass, or a ValueError names the field that does not fit."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

import pytest

from cvnet_engine.engine.typed_json import parse


@dataclass(frozen=True)
class Part:
    name: str


@dataclass(frozen=True)
class Whole:
    count: int
    share: float
    done: bool
    part: Part
    parts: dict[str, Part]
    limit: int | None
    numbers: dict[str, dict[str, float]]
    sides: tuple[int, ...]
    note: str | None = None


CONTENT = {
    "count": 3,
    "share": 0.5,
    "done": True,
    "part": {"name": "a"},
    "parts": {"b": {"name": "c"}},
    "limit": None,
    "numbers": {"x": {"y": 1.5}},
    "sides": (3, 4),
    "note": "text",
}


def parsed(**changes: object) -> Whole:
    return parse(json.dumps(CONTENT | changes), Whole)


def test_every_kind_of_field():
    assert asdict(parsed()) == CONTENT
    assert parsed().parts["b"] == Part("c")
    assert parsed(limit=7, note=None).limit == 7
    assert parsed(share=1).share == 1


def test_a_field_with_a_default_may_be_left_out():
    content = {name: value for name, value in CONTENT.items() if name != "note"}
    assert parse(json.dumps(content), Whole).note is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"count": "3"}, "count is of type str; expected int"),
        ({"count": 3.0}, "count is of type float; expected int"),
        ({"count": True}, "count is of type bool; expected int"),
        ({"share": "0.5"}, "share is of type str; expected float"),
        ({"share": True}, "share is of type bool; expected float"),
        ({"share": float("nan")}, "share is nan; expected a finite number"),
        ({"share": float("-inf")}, "share is -inf; expected a finite number"),
        ({"done": 1}, "done is of type int; expected bool"),
        ({"part": ["a"]}, "part is of type list; expected dict"),
        ({"part": {}}, "part lacks field 'name'"),
        ({"part": {"name": "a", "colour": "blue"}}, "part has an unknown field 'colour'"),
        ({"parts": {"b": "c"}}, r"parts\.b is of type str; expected dict"),
        ({"parts": None}, "parts is of type NoneType; expected dict"),
        ({"limit": "7"}, "limit is of type str; expected int"),
        ({"numbers": {"x": {"y": None}}}, r"numbers\.x\.y is of type NoneType; expected float"),
        ({"sides": 3}, "sides is of type int; expected list"),
        ({"sides": {"0": 3}}, "sides is of type dict; expected list"),
        ({"sides": [3, "4"]}, r"sides\[1\] is of type str; expected int"),
        ({"colour": "blue"}, "has an unknown field 'colour'"),
    ],
)
def test_a_field_that_does_not_fit_is_named(changes, message):
    with pytest.raises(ValueError, match=message):
        parsed(**changes)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "Expecting value"),
        ("{", "Expecting property name"),
        ("[]", "it is of type list"),
        ("null", "it is of type NoneType"),
        ("7", "it is of type int"),
        ("{}", "it lacks field 'count'"),
        ("[" * 200_000, "nested too deeply"),
        ('{"a":' * 200_000, "nested too deeply"),
    ],
    ids=lambda value: value[:20],
)
def test_text_that_is_not_such_an_object(text, message):
    with pytest.raises(ValueError, match=message):
        parse(text, Whole)
