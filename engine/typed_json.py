"""Parser from JSON to frozen dataclasses that checks the type of each field."""

from __future__ import annotations

import json
import math
import types
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

Record = TypeVar("Record")


def parse(text: str, record: type[Record]) -> Record:
    """Parse JSON into a dataclass.

    Fields may be int, float, str, bool, `dict[str, X]`, `tuple[X, ...]`, dataclasses, or any of these or None.

    Raises:
        ValueError: the text is not JSON or is nested too deeply; a field is missing, unknown or of another type; or a
            number is not finite.
    """
    try:
        content = json.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    parsed: Record = convert(content, record, "it")
    return parsed


def convert(value: Any, kind: Any, name: str) -> Any:
    """Convert `value` to the type `kind`; errors call it `name`."""
    if isinstance(kind, types.UnionType):  # something | None
        return None if value is None else convert(value, get_args(kind)[0], name)
    expected = dict if is_dataclass(kind) else get_origin(kind) or kind
    if expected is tuple:
        expected = list
    actual = type(value)
    if actual is not expected and (actual, expected) != (int, float):
        raise ValueError(f"{name} is of type {actual.__name__}; expected {expected.__name__}")
    if actual is float and not math.isfinite(value):
        raise ValueError(f"{name} is {value}; expected a finite number")
    if is_dataclass(kind):
        return build(value, kind, name)
    if expected is dict:
        return {key: convert(item, get_args(kind)[1], f"{name}.{key}") for key, item in value.items()}
    if expected is list:
        return tuple(convert(item, get_args(kind)[0], f"{name}[{index}]") for index, item in enumerate(value))
    return value


def build(content: dict[str, Any], record: Any, name: str) -> Any:
    """Build a dataclass from a JSON object."""
    kinds = get_type_hints(record)
    required = {field.name for field in fields(record) if field.default is MISSING}
    odd = sorted((required - content.keys()) | (content.keys() - kinds.keys()))
    if odd:
        raise ValueError(f"{name} {'lacks' if odd[0] in required else 'has an unknown'} field {odd[0]!r}")
    return record(**{key: convert(value, kinds[key], key) for key, value in content.items()})
