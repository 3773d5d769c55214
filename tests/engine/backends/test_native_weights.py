"""Weights of exactly the published shapes, or an error."""

import os

import numpy as np
import pytest

from cvnet_engine.cvnet.reranker import CorrelationLearner
from cvnet_engine.engine.backends.native.weights import load, shapes
from cvnet_engine.engine.errors import BackendError


@pytest.fixture
def tensors():
    return {name: np.zeros(shape, np.float32) for name, shape in shapes().items()}


def test_shapes_equal_those_of_the_published_model():
    published = {name: tuple(tensor.shape) for name, tensor in CorrelationLearner().state_dict().items()}
    assert shapes() == published


def test_weights_are_read_in_the_order_of_the_shapes(tensors, tmp_path):
    tensors["mlp.2.bias"][:] = 1, 2
    np.savez(tmp_path / "weights.npz", **tensors)
    read = load(tmp_path / "weights.npz")
    assert [t.shape for t in read] == list(shapes().values())
    assert read[-1].tolist() == [1, 2]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"block2.0.conv1.weight": np.zeros((1, 16, 3, 3), np.float32)}, "expected float32 .16, 16, 3, 3."),
        ({"mlp.0.bias": np.zeros(128)}, "float64"),
        ({"mlp.0.bias": np.full(128, np.nan, np.float32)}, "not finite"),
        ({"mlp.0.bias": np.array([None] * 128)}, "not readable"),  # a pickle
        ({"another": np.zeros(1, np.float32)}, "59 tensors; expected the 58"),
    ],
)
def test_other_weights_are_refused(tensors, tmp_path, change, words):
    np.savez(tmp_path / "weights.npz", **tensors | change)
    with pytest.raises(BackendError, match=words):
        load(tmp_path / "weights.npz")


@pytest.mark.parametrize("content", [None, b"", b"no archive", b"PK\x05\x06"])
def test_a_file_that_is_not_an_archive_is_refused(tmp_path, content):
    if content is not None:
        (tmp_path / "weights.npz").write_bytes(content)
    with pytest.raises(BackendError, match="build the bundle again"):
        load(tmp_path / "weights.npz")


def test_a_pipe_is_refused(tmp_path):
    os.mkfifo(tmp_path / "weights.npz")
    with pytest.raises(BackendError, match="a pipe"):
        load(tmp_path / "weights.npz")
