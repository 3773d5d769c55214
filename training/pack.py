"""Writer of the demonstration model's file: `python -m training.pack FOLDER` writes `cvnet/demo.npz`.

Copy the digest that it prints to `cvnet.built_in`.
"""

from __future__ import annotations

import hashlib
import io
import sys
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from torch import Tensor

from cvnet_engine.cvnet import built_in
from cvnet_engine.cvnet.checkpoint import published_name
from cvnet_engine.cvnet.model import CVNet
from cvnet_engine.engine.files import write_atomically
from training.verifier import load


def packed(model: CVNet) -> bytes:
    """Return a narrow model's weights by published name: matrices and kernels in float16, vectors in float32."""
    parts = {
        published_name(name): stored(tensor)
        for name, tensor in model.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    content = io.BytesIO()
    np.savez_compressed(content, allow_pickle=False, **parts)
    return content.getvalue()


def stored(tensor: Tensor) -> np.ndarray:
    return tensor.contiguous().numpy().astype(np.float16 if tensor.ndim > 1 else np.float32)


def main(folder: Annotated[Path, typer.Argument(help="Where training left its checkpoints.")]) -> None:
    """Write the demonstration model's file."""
    content = packed(load(folder))
    write_atomically(built_in.DEMO_FILE, content)
    sys.stdout.write(
        f"{built_in.DEMO_FILE}: {len(content) / 1e6:.2f} MB, SHA-256 {hashlib.sha256(content).hexdigest()}\n"
    )


if __name__ == "__main__":
    typer.run(main)
