"""Loading weights under their published names: a checkpoint file, or a built-in model."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from cvnet_engine.cvnet import built_in, tensor_file
from cvnet_engine.cvnet.backbone import TRUNKS
from cvnet_engine.cvnet.model import CVNet
from cvnet_engine.engine.errors import WeightsError

PARTS = ("encoder_q.", "conv2ds.", "cv_learner.")  # of the model, as published names begin
LISTED = 3  # number of tensors that a message lists
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


def load(weights: str, depth: int, note: Callable[[str], None] = lambda _: None, descriptor: str = "cvnet") -> CVNet:
    """The model in evaluation mode on the CPU.

    Args:
        weights: path of a checkpoint (`model_state` inside a dict, or the dict itself), `demo` or `seeded[:N]`.
        depth: 50 or 101.
        note: called with one line about tensors of the file that are ignored.
        descriptor: see `CVNet`.

    Raises:
        WeightsError: the file is missing, is not a checkpoint, or its tensors are not this model's.
    """
    if depth not in TRUNKS:
        raise WeightsError(f"depth {depth} is not a CVNet model: expected 50 or 101")
    if built_in.is_built_in(weights):
        arrays = built_in.state_dict(weights, depth, published_shapes(depth))
        return assemble({name: torch.from_numpy(array) for name, array in arrays.items()}, depth, descriptor)
    content = tensor_file.load(Path(weights))
    tensors = tensor_file.state_dict(content, Path(weights))
    state = parts_of_model(tensors, weights)
    check(state, depth, weights)
    left_out = tensor_file.count_tensors(content) - len(state)
    if left_out > 0:
        note(f"{weights}: ignored {left_out} tensors that do not belong to the model")
    return assemble(state, depth, descriptor)


def assemble(state: Mapping[str, Tensor], depth: int, descriptor: str) -> CVNet:
    """`CVNet` holding the tensors of a checked `state`, by published name; floats become float32."""
    with torch.device("meta"):  # skips an initialisation that would be overwritten
        model = CVNet(depth, descriptor)
    uncounted = torch.tensor(0)  # num_batches_tracked of a norm, which nothing reads
    renamed = {ours: state.get(published_name(ours), uncounted) for ours in model.state_dict()}
    renamed = {name: t.float().contiguous() if t.is_floating_point() else t for name, t in renamed.items()}
    model.load_state_dict(renamed, assign=True)
    return model.eval().requires_grad_(False)


def parts_of_model(tensors: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """Tensors of the model's own parts by published name.

    DataParallel adds `module.`; some checkpoints say `globalmodel.` for `encoder_q.`.

    Raises:
        WeightsError: two tensors map to one name.
    """
    state: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        published = re.sub(r"^globalmodel\.", "encoder_q.", re.sub(r"^(module\.)+", "", name))
        if not published.startswith(PARTS):
            continue
        if published in state:
            raise WeightsError(f"{source}: two tensors for {published}, one of them {name}; expected one")
        state[published] = tensor
    return state


def check(state: Mapping[str, Tensor], depth: int, source: str) -> None:
    """Raise WeightsError unless `state` has every weight of this depth, finite floats in its shape, and no other."""
    expected = published_shapes(depth)
    present = [name for name in expected if name in state]
    faults = {
        "missing": [name for name in sorted(weights_of(expected)) if name not in state],
        "extra": [name for name in state if name not in expected],
        "misshapen": [
            f"{name} is {list(state[name].shape)}, expected {list(expected[name])}"
            for name in present
            if tuple(state[name].shape) != expected[name]
        ],
        "not of finite floats": [name for name in weights_of(present) if not is_finite(state[name])],
    }
    if not any(faults.values()):
        return
    (other,) = set(TRUNKS) - {depth}
    if weights_of(state) == weights_of(published_shapes(other)):
        raise WeightsError(
            f"{source}: a ResNet-{other} checkpoint, but ResNet-{depth} was requested; use --depth {other}"
        )
    listed = [
        f"{len(names)} {fault} ({', '.join(names[:LISTED])}{', ...' if len(names) > LISTED else ''})"
        for fault, names in faults.items()
        if names
    ]
    raise WeightsError(
        f"{source}: not a CVNet ResNet-{depth} checkpoint: tensors {', '.join(listed)}; check the file and --depth"
    )


def weights_of(names: Iterable[str]) -> set[str]:
    """Names of tensors that are used; nothing reads num_batches_tracked."""
    return {name for name in names if not name.endswith("num_batches_tracked")}


def is_finite(tensor: Tensor) -> bool:
    """Tell if a tensor is dense, floating and finite."""
    dense = tensor.layout == torch.strided and tensor.is_floating_point()
    return dense and bool(tensor.float().isfinite().all())


def digest(model: CVNet) -> str:
    """SHA-256 over all tensors under their published names; equal weights in different files give equal digests."""
    sha = hashlib.sha256()
    for name, tensor in sorted((published_name(n), t) for n, t in model.state_dict().items()):
        sha.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        sha.update(tensor.cpu().contiguous().numpy().tobytes())
    return sha.hexdigest()
