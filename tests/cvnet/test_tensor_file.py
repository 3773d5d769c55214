"""Checkpoint files in all common forms, and damaged or malicious ones."""

from __future__ import annotations

import argparse
import collections
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from cvnet_engine.cvnet import tensor_file
from cvnet_engine.engine.errors import WeightsError

STATE = {"a.weight": torch.arange(6.0).reshape(2, 3), "b": torch.tensor(7)}


class Configuration(dict[str, Any]):
    """A dict with attributes, as configuration libraries create."""


class Evil:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return touch, (self.marker,)


def touch(marker: Path) -> None:
    marker.touch()


class ListOfOurs(list[int]):
    """A class that PyTorch's unpickler always refuses."""


def saved(path: Path, content: Any, zipped: bool = True, protocol: int = 2) -> Path:
    torch.save(content, path, _use_new_zipfile_serialization=zipped, pickle_protocol=protocol)
    return path


def read(path: Path) -> dict[str, torch.Tensor]:
    return tensor_file.state_dict(tensor_file.load(path), path)


def assert_state(path: Path) -> None:
    found = read(path)
    assert found.keys() == STATE.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in STATE.items())


def configuration() -> Configuration:
    made = Configuration(depth=50, nested=Configuration(rate=0.1))
    made.frozen = True  # type: ignore[attr-defined]
    return made


@pytest.mark.parametrize("zipped", [True, False], ids=["1.6", "older"])
@pytest.mark.parametrize(
    "beside",
    [
        {},
        {"epoch": 7, "name": "r50", "losses": [0.5, 0.25], "sizes": (1, 2)},
        {"best": np.float64(0.5), "epoch": np.int64(3)},
        {"rng": np.arange(3)},
        {"config": argparse.Namespace(depth=50, nested=argparse.Namespace(rate=0.1))},
        {"config": configuration()},
        {"where": Path("/some/where"), "counts": collections.defaultdict(int, a=1)},
        {"optimizer_state": {"state": {0: {"momentum_buffer": torch.zeros(3)}}, "param_groups": [{"params": [0]}]}},
    ],
    ids=["alone", "plain", "scalars", "array", "namespace", "configuration", "objects", "optimizer"],
)
def test_tensors_are_read_next_to_other_objects(tmp_path, zipped, beside):
    assert_state(saved(tmp_path / "w.pyth", {"model_state": STATE} | beside, zipped))


@pytest.mark.parametrize("zipped", [True, False], ids=["1.6", "older"])
@pytest.mark.parametrize(
    "state",
    [
        collections.OrderedDict(STATE),
        {name: torch.nn.Parameter(t, requires_grad=False) for name, t in STATE.items()},
        STATE | {"epoch": 7},
        collections.defaultdict(dict, STATE),
    ],
    ids=["ordered", "parameters", "with-a-number", "default"],
)
def test_a_dict_without_model_state_is_read(tmp_path, zipped, state):
    assert_state(saved(tmp_path / "w.pth", state, zipped))


def test_safetensors(tmp_path):
    save_file(STATE, tmp_path / "w.safetensors")
    assert_state(tmp_path / "w.safetensors")


@pytest.mark.parametrize("zipped", [True, False], ids=["1.6", "older"])
def test_code_does_not_run(tmp_path, zipped):
    path = saved(tmp_path / "w.pyth", {"model_state": STATE, "evil": Evil(tmp_path / "ran")}, zipped)
    assert_state(path)
    assert not (tmp_path / "ran").exists()
    torch.load(path, weights_only=False)
    assert (tmp_path / "ran").exists()  # it would have run


@pytest.mark.parametrize(
    ("beside", "named"),
    [(os.getcwd, r"posix\.getcwd"), (ListOfOurs([1]), r"test_tensor_file\.ListOfOurs")],
)
def test_a_refused_object_is_named_with_the_command_to_use(tmp_path, monkeypatch, beside, named):
    path = saved(tmp_path / "w.pyth", {"model_state": STATE, "beside": beside})
    with pytest.raises(WeightsError, match=rf"{named}.*save its tensors alone: python -c \"import torch") as caught:
        read(path)
    assert "\n" not in str(caught.value)
    command = str(caught.value).partition('python -c "')[2].rstrip('"')
    monkeypatch.chdir(tmp_path)
    exec(command, {})
    assert_state(tmp_path / "tensors.pyth")


def test_a_newer_pickle_protocol_is_refused_with_the_command(tmp_path, recwarn):
    with pytest.raises(WeightsError, match="save its tensors alone"):
        read(saved(tmp_path / "w.pyth", {"model_state": STATE}, protocol=4))
    assert not recwarn


@pytest.mark.parametrize("name", ["w.pyth", "w.safetensors"])
@pytest.mark.parametrize("content", [b"", b"text", b"\x80\x02}", b"PK\x03\x04", b"\xff" * 5000])
def test_a_file_of_another_kind_is_refused(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsError) as caught:
        read(tmp_path / name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("zipped", [True, False], ids=["1.6", "older"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
def test_a_truncated_file_is_refused(tmp_path, zipped, share):
    data = saved(tmp_path / "w.pyth", {"model_state": STATE}, zipped).read_bytes()
    (tmp_path / "w.pyth").write_bytes(data[: int(len(data) * share)])
    with pytest.raises(WeightsError):
        read(tmp_path / "w.pyth")


@pytest.mark.parametrize("content", [[], 7, {}, {"model_state": 7}, {"model_state": [STATE]}, {"epoch": 3}, None])
def test_a_file_without_a_state_dict(tmp_path, content):
    with pytest.raises(WeightsError, match="holds no state dict"):
        read(saved(tmp_path / "w.pyth", content))


def test_tensors_are_counted_once():
    shared = torch.zeros(1)
    circle: list[Any] = [shared, {"again": shared, "other": (torch.ones(1), 7)}]
    circle.append(circle)
    assert tensor_file.count_tensors(circle) == 2


def test_a_plain_pickle_is_refused(tmp_path):
    (tmp_path / "w.pyth").write_bytes(pickle.dumps({"model_state": {"a": 1}}, protocol=2))
    with pytest.raises(WeightsError):
        read(tmp_path / "w.pyth")
