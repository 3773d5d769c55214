"""Command that writes a generated data set: `python -m scenes NAME DATA_DIR`.

`python -m scenes demo cvnet_engine` writes the images that `cvnet-engine demo` uses.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from scenes.dataset import SETS, write


def main(
    name: Annotated[str, typer.Argument(help=f"Name of the set: {', '.join(SETS)}.")],
    data_dir: Annotated[Path, typer.Argument(help="Folder of data sets; created if missing.")],
) -> None:
    """Generate a set of scenes in DATA_DIR/NAME, unless it is there already."""
    if name not in SETS:
        sys.exit(f"{name}: no such scenes; expected one of {', '.join(SETS)}")
    sys.stdout.write(f"{write(SETS[name], data_dir)}\n")


if __name__ == "__main__":
    typer.run(main)
