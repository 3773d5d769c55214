"""Reader of checkpoint files: any PyTorch format, and safetensors. It never executes code from a file.

PyTorch's restricted unpickler reads tensors and plain containers. Checkpoints often contain objects of other classes
(a configuration, NumPy scalars); each is replaced by a stand-in that ignores its data.
"""

from __future__ import annotations

import re
import warnings
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from cvnet_engine.engine.errors import WeightsError, one_line

# messages of the unpickler about other objects; group 1 is the name of a class or function
REFUSED = re.compile(r"Unsupported global: GLOBAL (\S+) was not|(?:Unsupported operand|Can only|Trying to) .*")
FOREIGN_LIMIT = 100  # classes; each one costs another pass over the file


class Scalar:
    """Stands in for NumPy's scalars and their dtypes."""

    def __init__(self, *_: object) -> None: ...

    def __setstate__(self, _: object) -> None: ...


class Record:
    """Stands in for an object. It makes a dict, because the unpickler allows only a dict both items and a state."""

    def __new__(cls, *_: object) -> Any:
        return OrderedDict()


def load(path: Path) -> Any:
    """The content of a checkpoint, on the CPU.

    Raises:
        WeightsError: the file is missing, unreadable, or needs code to be run.
    """
    if not path.is_file():
        raise WeightsError(f"{path}: no such checkpoint; expected a .pyth/.pth/.safetensors file, 'demo' or 'seeded'")
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        require_checksums(path)
        return unpickled(path)
    except WeightsError:
        raise
    except Exception as error:  # both libraries raise many kinds for a damaged or hostile file
        raise WeightsError(
            f"{path}: not a readable checkpoint ({one_line(error)}); expected a file of tensors: copy it again"
        ) from error


def require_checksums(path: Path) -> None:
    """Raise ValueError if a zip file's checksums do not match. PyTorch does not check them."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            checked = any(entry.CRC for entry in archive.infolist())  # torch.save can omit them
            damaged = archive.testzip() if checked else None
        if damaged:
            raise ValueError(f"the checksum of {damaged} differs")


def unpickled(path: Path) -> Any:
    """A PyTorch file's content, with stand-ins for objects of foreign classes."""
    foreign: dict[str, type] = {}
    while True:
        try:
            stand_ins: list[Any] = [(stand_in, name) for name, stand_in in foreign.items()]
            with torch.serialization.safe_globals(stand_ins), warnings.catch_warnings(action="ignore"):
                return torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:
            refused = REFUSED.search(str(error)) if begins_as_saved(path) else None
            if not refused:
                raise
            name = refused[1] and (refused[1] if "." in refused[1] else f"builtins.{refused[1]}")
            if not name or name in foreign or len(foreign) == FOREIGN_LIMIT:
                raise WeightsError(refusal(path, [*foreign, refused[0]])) from error
            foreign[name] = Scalar if name.startswith("numpy.") else Record


def begins_as_saved(path: Path) -> bool:
    """Tell if a file begins like PyTorch's: as a zip file, or as a pickle before version 1.6."""
    with path.open("rb") as stream:
        return stream.read(2).startswith((b"PK", b"\x80"))


def refusal(path: Path, reasons: list[str]) -> str:
    """The error for a file with objects that cannot be replaced."""
    save = f"import torch; torch.save(torch.load({str(path)!r}, weights_only=False)['model_state'], 'tensors.pyth')"
    return (
        f"{path}: holds more than tensors and plain containers ({'; '.join(reasons)[:300]}), which is not read for "
        f'safety; if you trust the file, save its tensors alone: python -c "{save}"'
    )


def state_dict(content: Any, path: Path) -> dict[str, Tensor]:
    """The tensors by name: those under `model_state`, else those of the dict itself.

    Raises:
        WeightsError: neither is a dict with a tensor in it.
    """
    state = content.get("model_state", content) if isinstance(content, dict) else None
    if isinstance(state, dict):
        tensors = {name: t for name, t in state.items() if isinstance(name, str) and isinstance(t, Tensor)}
        if tensors:
            return tensors
    raise WeightsError(f"{path}: holds no state dict; expected a dict of tensors, or one under 'model_state'")


def count_tensors(content: Any) -> int:
    """Tensors anywhere in a checkpoint's containers, without counting one twice."""
    waiting, seen = [content], {}
    while waiting:
        item = waiting.pop()
        if id(item) not in seen:
            seen[id(item)] = item
            waiting += item.values() if isinstance(item, dict) else item if isinstance(item, list | tuple) else ()
    return sum(isinstance(item, Tensor) for item in seen.values())
