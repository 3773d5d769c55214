"""Weights under their published names: what loads, and what each fault is called."""

import json
import pickle

import pytest
import torch

from cvnet import checkpoint
from engine.errors import WeightsError
from tests.golden_inputs import GOLDEN


@pytest.fixture(scope="module")
def state(seeded_model):
    """A published state dict of ResNet-50."""
    return {checkpoint.published_name(n): t for n, t in seeded_model(50).state_dict().items()}


@pytest.mark.parametrize("depth", [50, 101])
def test_every_published_key_and_shape(depth):
    want = json.loads((GOLDEN / f"keys_r{depth}.json").read_text())
    assert {name: list(shape) for name, shape in checkpoint.published_shapes(depth).items()} == want


@pytest.mark.parametrize("wrapped", [True, False])
def test_checkpoint_file_equals_seeded(tmp_path, state, seeded_model, wrapped):
    torch.save({"model_state": state, "epoch": 7} if wrapped else state, tmp_path / "w.pyth")
    assert checkpoint.digest(checkpoint.load(str(tmp_path / "w.pyth"), 50)) == checkpoint.digest(seeded_model(50))


def test_digest_depends_on_weights(seeded_model):
    assert checkpoint.digest(checkpoint.load("seeded:1", 50)) != checkpoint.digest(seeded_model(50))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("conv2ds.1.weight"), r"1 missing \(conv2ds\.1\.weight\)"),
        (lambda s: s.update(surplus=torch.zeros(1)), r"1 extra \(surplus\)"),
        (lambda s: s.update({"encoder_q.head.pool.p": torch.ones(2)}), r"pool\.p is \[2\], expected \[1\]"),
    ],
)
def test_strict(tmp_path, state, change, message):
    damaged = dict(state)
    change(damaged)
    torch.save(damaged, tmp_path / "w.pyth")
    with pytest.raises(WeightsError, match=message):
        checkpoint.load(str(tmp_path / "w.pyth"), 50)


def test_wrong_depth_names_the_right_one(tmp_path, state):
    torch.save(state, tmp_path / "w.pyth")
    with pytest.raises(WeightsError, match="use --depth 50"):
        checkpoint.load(str(tmp_path / "w.pyth"), 101)


def test_truncated_file(tmp_path, state):
    torch.save(state, tmp_path / "w.pyth")
    data = (tmp_path / "w.pyth").read_bytes()
    (tmp_path / "w.pyth").write_bytes(data[: len(data) // 2])
    with pytest.raises(WeightsError, match="not a readable PyTorch checkpoint"):
        checkpoint.load(str(tmp_path / "w.pyth"), 50)


class Evil:
    def __reduce__(self):
        return print, ("code from a checkpoint ran",)


def test_code_in_a_checkpoint_does_not_run(tmp_path, capsys):
    (tmp_path / "w.pyth").write_bytes(pickle.dumps({"model_state": Evil()}, protocol=2))
    with pytest.raises(WeightsError):
        checkpoint.load(str(tmp_path / "w.pyth"), 50)
    assert "ran" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("weights", "depth"), [("absent.pyth", 50), ("seeded:x", 50), ("seeded:-1", 50), ("seeded:0", 34)]
)
def test_bad_requests(weights, depth):
    with pytest.raises(WeightsError):
        checkpoint.load(weights, depth)
