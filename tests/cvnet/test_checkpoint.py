"""Checkpoints under their published names: those that load, and the error of each fault."""

import json
import pickle

import pytest
import torch
from safetensors.torch import save_file

from cvnet_engine.cvnet import checkpoint, tensor_file
from cvnet_engine.engine.errors import WeightsError
from tests.golden_inputs import GOLDEN


@pytest.fixture(scope="module")
def state(seeded_model):
    """A published state dict of ResNet-50."""
    return {checkpoint.published_name(n): t for n, t in seeded_model(50).state_dict().items()}


def small_state(depth):
    """A state dict of one repeated value, which makes a file of some KB."""
    shapes = checkpoint.published_shapes(depth).items()
    return {
        name: torch.tensor(0 if name.endswith("num_batches_tracked") else 1.1).expand(shape) for name, shape in shapes
    }


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


def save(folder, state):
    torch.save({"model_state": state}, folder / "w.pyth")
    return str(folder / "w.pyth")


EXPONENT = "encoder_q.head.pool.p"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("conv2ds.1.weight"), r"1 missing \(conv2ds\.1\.weight\)"),
        (lambda s: [s.pop(f"conv2ds.{n}.weight") for n in range(3)] + [s.pop(EXPONENT)], r"4 missing \(.*, \.\.\.\)"),
        (lambda s: s.update({"encoder_q.surplus": torch.zeros(1)}), r"1 extra \(encoder_q\.surplus\)"),
        (lambda s: s.update({EXPONENT: torch.ones(2)}), r"pool\.p is \[2\], expected \[1\]"),
        (lambda s: s.update({EXPONENT: torch.tensor([torch.nan])}), rf"1 not of finite floats \({EXPONENT}\)"),
        (lambda s: s.update({EXPONENT: torch.ones(1, dtype=torch.int64)}), rf"not of finite floats \({EXPONENT}\)"),
        (lambda s: s.update({EXPONENT: torch.ones(1).to_sparse()}), rf"not of finite floats \({EXPONENT}\)"),
        (lambda s: s.update({f"module.{EXPONENT}": torch.ones(1)}), rf"two tensors for {EXPONENT}"),
        (lambda s: s.update({"globalmodel.head.pool.p": torch.ones(1)}), rf"two tensors for {EXPONENT}"),
    ],
)
def test_a_wrong_tensor_is_named(tmp_path, change, message):
    damaged = small_state(50)
    change(damaged)
    with pytest.raises(WeightsError, match=message) as caught:
        checkpoint.load(save(tmp_path, damaged), 50)
    assert "\n" not in str(caught.value)


def renamed(state, old, new):
    return {new + name.removeprefix(old) if name.startswith(old) else name: t for name, t in state.items()}


@pytest.mark.parametrize(
    "rename",
    [
        lambda s: renamed(s, "", "module."),
        lambda s: renamed(s, "encoder_q.", "globalmodel."),
        lambda s: renamed(renamed(s, "encoder_q.", "globalmodel."), "", "module."),
    ],
    ids=["module", "globalmodel", "both"],
)
def test_other_names_of_the_same_tensors(tmp_path, state, seeded_model, rename):
    loaded = checkpoint.load(save(tmp_path, rename(state)), 50)
    assert checkpoint.digest(loaded) == checkpoint.digest(seeded_model(50))


def test_num_batches_tracked_may_be_missing(tmp_path, state, seeded_model):
    loaded = checkpoint.load(save(tmp_path, {n: t for n, t in state.items() if "num_batches" not in n}), 50)
    weights, expected = (checkpoint.weights_of(model.state_dict()) for model in (loaded, seeded_model(50)))
    assert weights == expected
    assert all(torch.equal(loaded.state_dict()[name], seeded_model(50).state_dict()[name]) for name in weights)


def test_tensors_of_other_models_are_ignored_and_counted(tmp_path, state, seeded_model):
    momentum_encoder = {f"encoder_k.{n}": torch.zeros(n) for n in range(7)}
    others = momentum_encoder | {"queue": torch.zeros(3, 4), "queue_ptr": torch.zeros(1)}
    content = {"model_state": others | state, "optimizer_state": {"state": {0: {"momentum": torch.zeros(9)}}}}
    torch.save(content, tmp_path / "w.pyth")
    notes = []
    loaded = checkpoint.load(str(tmp_path / "w.pyth"), 50, notes.append)
    assert checkpoint.digest(loaded) == checkpoint.digest(seeded_model(50))
    assert notes == [f"{tmp_path / 'w.pyth'}: ignored 10 tensors that do not belong to the model"]


def test_a_file_with_only_the_model_gives_no_note(tmp_path):
    notes = []
    checkpoint.load(save(tmp_path, small_state(50)), 50, notes.append)
    assert notes == []


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_floats_of_other_widths_become_float32(tmp_path, dtype):
    narrow = {name: t.to(dtype) if t.is_floating_point() else t for name, t in small_state(50).items()}
    loaded = checkpoint.load(save(tmp_path, narrow), 50).state_dict()
    assert {t.dtype for t in loaded.values()} == {torch.float32, torch.int64}
    assert all(torch.equal(t, narrow[checkpoint.published_name(name)].to(t.dtype)) for name, t in loaded.items())


def test_safetensors(tmp_path, state, seeded_model):
    save_file({name: t.contiguous() for name, t in state.items()}, tmp_path / "w.safetensors")
    loaded = checkpoint.load(str(tmp_path / "w.safetensors"), 50)
    assert checkpoint.digest(loaded) == checkpoint.digest(seeded_model(50))


@pytest.mark.parametrize(("saved", "asked"), [(50, 101), (101, 50)])
def test_wrong_depth_names_the_right_one(tmp_path, saved, asked):
    with pytest.raises(WeightsError, match=f"use --depth {saved}"):
        checkpoint.load(save(tmp_path, small_state(saved)), asked)


def test_truncated_file(tmp_path):
    torch.save(small_state(50), tmp_path / "w.pyth")
    data = (tmp_path / "w.pyth").read_bytes()
    (tmp_path / "w.pyth").write_bytes(data[: len(data) // 2])
    with pytest.raises(WeightsError, match="not a readable checkpoint"):
        checkpoint.load(str(tmp_path / "w.pyth"), 50)


def test_a_flipped_bit_in_a_tensor(tmp_path):
    torch.save({"a": torch.arange(1000.0)}, tmp_path / "w.pyth")
    data = bytearray((tmp_path / "w.pyth").read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "w.pyth").write_bytes(data)
    torch.load(tmp_path / "w.pyth")  # does not notice
    with pytest.raises(WeightsError, match="the checksum of w/data/0 differs"):
        tensor_file.load(tmp_path / "w.pyth")


def test_a_file_that_was_saved_without_checksums_is_read(tmp_path):
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"a": torch.arange(3.0)}, tmp_path / "w.pyth")
    finally:
        torch.serialization.set_crc32_options(True)
    assert tensor_file.load(tmp_path / "w.pyth")["a"].tolist() == [0, 1, 2]


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
