"""Loading weights under their published names: a checkpoint file, or a built-in model. Strict and safe."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cvnet import demo, seeded
from cvnet.backbone import TRUNKS
from cvnet.model import CVNet
from engine.errors import WeightsError

# our name -> published name, first match wins
RENAMINGS = [
    (r"backbone\.trunk\.conv1\.", r"encoder_q.stem.conv."),
    (r"backbone\.trunk\.bn1\.", r"encoder_q.stem.bn."),
    (r"backbone\.trunk\.layer(\d)\.(\d+)\.downsample\.0\.", r"encoder_q.s\1.b\2.proj."),
    (r"backbone\.trunk\.layer(\d)\.(\d+)\.downsample\.1\.", r"encoder_q.s\1.b\2.bn."),
    (r"backbone\.trunk\.layer(\d)\.(\d+)\.conv(\d)\.", r"encoder_q.s\1.b\2.f.\3."),
    (r"backbone\.trunk\.layer(\d)\.(\d+)\.bn(\d)\.", r"encoder_q.s\1.b\2.f.\3_bn."),
    (r"backbone\.gem\.", r"encoder_q.head.pool."),
    (r"backbone\.whiten\.", r"encoder_q.head.fc."),
    (r"reranker\.projections\.", r"conv2ds."),
    (r"reranker\.learner\.", r"cv_learner."),
]


def published_name(name: str) -> str:
    """The published checkpoint's name of one of `CVNet`'s tensors."""
    for ours, theirs in RENAMINGS:
        name, hits = re.subn("^" + ours, theirs, name)
        if hits:
            # blocks count from 1, and a bottleneck's convolutions are called a, b, c
            name = re.sub(r"\.b(\d+)\.", lambda m: f".b{int(m[1]) + 1}.", name)
            return re.sub(r"\.f\.([123])", lambda m: ".f." + "abc"[int(m[1]) - 1], name)
    raise AssertionError(f"no published name for {name}")


def published_shapes(depth: int) -> dict[str, tuple[int, ...]]:
    """Every tensor of a published checkpoint: name -> shape."""
    with torch.device("meta"):
        model = CVNet(depth)
    return {published_name(name): tuple(t.shape) for name, t in model.state_dict().items()}


def load(weights: str, depth: int) -> CVNet:
    """The model in evaluation mode on the CPU.

    Args:
        weights: path of a checkpoint (`model_state` inside a dict, or the dict itself), `demo` or `seeded[:N]`.
        depth: 50 or 101.

    Raises:
        WeightsError: no such file, not a checkpoint, or a missing, extra or misshapen tensor, named.
    """
    if depth not in TRUNKS:
        raise WeightsError(f"depth {depth} is not a CVNet model: expected 50 or 101")
    if is_built_in(weights):
        state = {name: torch.from_numpy(a) for name, a in built_in(weights, depth).items()}
    else:
        state = read(Path(weights))
        check(state, depth, weights)
    return assemble(state, depth)


def is_built_in(weights: str) -> bool:
    """Whether `weights` names a model that needs no file of the user's."""
    return weights == demo.NAME or seeded.parse(weights) is not None


def built_in(weights: str, depth: int) -> dict[str, np.ndarray]:
    """Every published tensor of the demonstration model or a seeded one.

    Raises:
        WeightsError: no demonstration model of that depth, or its file is missing or changed.
    """
    shapes, seed = published_shapes(depth), seeded.parse(weights)
    if seed is not None:
        return seeded.state_dict(shapes, seed)
    if depth != demo.DEPTH:
        raise WeightsError(f"the demonstration model is a ResNet-{demo.DEPTH}; use --depth {demo.DEPTH}")
    return demo.state_dict(shapes)


def assemble(state: dict[str, Tensor], depth: int) -> CVNet:
    """`CVNet` holding the tensors of a checked `state`, by published name."""
    with torch.device("meta"):  # no time spent on an initialisation that is overwritten at once
        model = CVNet(depth)
    renamed = {ours: state[published_name(ours)] for ours in model.state_dict()}
    renamed = {name: t.float() if t.is_floating_point() else t for name, t in renamed.items()}
    model.load_state_dict(renamed, assign=True)
    return model.eval().requires_grad_(False)


def read(path: Path) -> dict[str, Tensor]:
    """The state dict of a checkpoint file; only tensors and plain containers are unpickled."""
    if not path.is_file():
        raise WeightsError(f"{path}: no such checkpoint; expected a .pyth/.pth file, 'demo' or 'seeded'")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a damaged or hostile file
        reason = str(error).strip().splitlines()[0][:160] if str(error).strip() else type(error).__name__
        raise WeightsError(
            f"{path}: not a readable PyTorch checkpoint ({reason}); expected an unharmed file of tensors: copy it again"
        ) from error
    state = content.get("model_state", content) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(isinstance(t, Tensor) for t in state.values()):
        raise WeightsError(f"{path}: holds no state dict; expected a dict of tensors, or one under 'model_state'")
    return state


def check(state: dict[str, Tensor], depth: int, source: str) -> None:
    """Raise WeightsError unless `state` has every published tensor of this depth in its shape, and no other."""
    expected = published_shapes(depth)
    missing = [name for name in expected if name not in state]
    extra = [name for name in state if name not in expected]
    misshapen = [name for name in expected if name in state and tuple(state[name].shape) != expected[name]]
    if not (missing or extra or misshapen):
        return
    (other,) = set(TRUNKS) - {depth}
    if set(state) == set(published_shapes(other)):
        raise WeightsError(
            f"{source}: a ResNet-{other} checkpoint, where ResNet-{depth} was asked for; use --depth {other}"
        )
    faults = [f"{len(names)} {kind} ({names[0]})" for kind, names in (("missing", missing), ("extra", extra)) if names]
    if misshapen:
        name = misshapen[0]
        got, want = list(state[name].shape), list(expected[name])
        faults.append(f"{len(misshapen)} misshapen ({name} is {got}, expected {want})")
    raise WeightsError(
        f"{source}: not a CVNet ResNet-{depth} checkpoint: tensors {', '.join(faults)}; check the file and --depth"
    )


def digest(model: CVNet) -> str:
    """SHA-256 of every tensor under its published name: equal weights, equal digest, whatever the file."""
    sha = hashlib.sha256()
    for name, tensor in sorted((published_name(n), t) for n, t in model.state_dict().items()):
        sha.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        sha.update(tensor.cpu().contiguous().numpy().tobytes())
    return sha.hexdigest()
