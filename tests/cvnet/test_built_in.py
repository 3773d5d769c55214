"""The demonstration model: its file, and the narrow network laid into the published one."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch

from cvnet_engine.cvnet import built_in, checkpoint
from cvnet_engine.engine.errors import WeightsError
from training.pack import packed
from training.slim import Stage, Widths, slim_model

TINY = Widths(stem=8, stages=(Stage(8, 16, 1), Stage(8, 16, 2), Stage(8, 24, 6), Stage(8, 32, 1)), descriptor=16)


def test_a_narrow_model_and_its_whole_form_compute_the_same(tmp_path, monkeypatch):
    torch.manual_seed(0)
    narrow = slim_model(TINY).eval()
    for name, tensor in narrow.state_dict().items():
        if name.endswith(("running_mean", "bias")):
            tensor.normal_(0, 0.1)
        elif tensor.ndim > 1:
            tensor.copy_(tensor.half())
    content = packed(narrow)
    (tmp_path / "demo.npz").write_bytes(content)
    monkeypatch.setattr(built_in, "DEMO_FILE", tmp_path / "demo.npz")
    monkeypatch.setattr(built_in, "DEMO_SHA256", hashlib.sha256(content).hexdigest())
    whole = checkpoint.load("demo", 50)

    images = torch.randn(2, 3, 80, 96)
    with torch.inference_mode():
        (want, want_map), (got, got_map) = narrow(images), whole(images)
        torch.testing.assert_close(got[:, : TINY.descriptor], want, atol=1e-5, rtol=0)
        torch.testing.assert_close(got_map[:, :24], want_map, atol=1e-4, rtol=0)
        assert not got[:, TINY.descriptor :].any()
        assert not got_map[:, 24:].any()
        scores = [model.score(m[:1], m[1:]) for model, m in ((narrow, want_map), (whole, got_map))]
        torch.testing.assert_close(scores[1], scores[0], atol=1e-5, rtol=0)


def test_a_stored_part_fills_the_first_channels_and_the_middle():
    part = np.ones((2, 3, 1, 1), np.float16)
    tensor = built_in.demo_tensor("conv2ds.0.weight", (4, 5, 3, 3), part)
    assert tensor.dtype == np.float32
    assert tensor.sum() == tensor[:2, :3, 1, 1].sum() == 6
    assert built_in.demo_tensor("bn.running_var", (3,), np.array([4.0])).tolist() == [4, 1, 1]
    assert built_in.demo_tensor("bn.weight", (3,), None).tolist() == [0, 0, 0]


def test_the_shipped_file_is_small_and_every_tensor_fits():
    assert built_in.DEMO_FILE.stat().st_size <= 4_000_000
    shapes = checkpoint.published_shapes(built_in.DEMO_DEPTH)
    for name, part in built_in.read_demo().items():
        assert len(part.shape) == len(shapes[name])
        assert all(kept <= size for kept, size in zip(part.shape, shapes[name], strict=True))
        assert part.dtype == (np.float16 if part.ndim > 1 else np.float32)
        assert np.isfinite(part).all()


@pytest.mark.parametrize(
    ("content", "depth", "message"),
    [(b"not the model", 50, "SHA-256 differs"), (None, 50, "not readable"), (b"", 101, "--depth 50")],
    ids=["changed", "missing", "depth"],
)
def test_no_demonstration_model_is_a_weights_error(content, depth, message, tmp_path, monkeypatch):
    monkeypatch.setattr(built_in, "DEMO_FILE", tmp_path / "demo.npz")
    if content is not None:
        (tmp_path / "demo.npz").write_bytes(content)
    with pytest.raises(WeightsError, match=message):
        checkpoint.load("demo", depth)
