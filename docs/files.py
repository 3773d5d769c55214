"""What every source file is for, as `docs/architecture.md` lists it: `python docs/files.py` writes the list anew.

A file's purpose is the first line of its docstring, or of a C file's first comment.
"""

from __future__ import annotations

import ast
import re
from itertools import groupby
from pathlib import Path

from cvnet_engine.engine.files import write_atomically

ROOT = Path(__file__).resolve().parent.parent
DOCUMENT = ROOT / "docs" / "architecture.md"
BEGIN, END = "<!-- files: written by python docs/files.py -->", "<!-- end of files -->"
SUFFIXES = (".py", ".c", ".h")
PACKAGES = ("engine", "export", "cvnet", "benchmarks", "scenes", "training", "cvnet_engine")


def main() -> None:
    write_atomically(DOCUMENT, updated(DOCUMENT.read_text(), ROOT))


def updated(document: str, root: Path) -> str:
    """The document with its list made anew, between two lines that it must have."""
    before, _, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    assert end, f"no place for the list: expected '{BEGIN}' and '{END}'"
    return f"{before}{BEGIN}\n\n{listed(root)}\n{END}{after}"


def listed(root: Path) -> str:
    """A heading a folder, a row a file."""
    lines = []
    for folder, files in groupby(sources(root), key=lambda file: file.parent):
        lines += [f"### {folder.relative_to(root)}/", "", "| file | what it is |", "| --- | --- |"]
        lines += [f"| `{file.name}` | {purpose(file)} |" for file in files]
        lines.append("")
    return "\n".join(lines)


def sources(root: Path) -> list[Path]:
    """Files with code, folder by folder; an `__init__.py` counts where it has more than a docstring."""
    return [
        file
        for package in PACKAGES
        for file in sorted((root / package).rglob("*"), key=lambda file: (file.parent, file.name))
        if file.suffix in SUFFIXES and has_code(file)
    ]


def has_code(file: Path) -> bool:
    return file.name != "__init__.py" or not all(
        isinstance(node, ast.Expr) for node in ast.parse(file.read_text()).body
    )


def purpose(file: Path) -> str:
    """The first line of what a file says of itself."""
    text = file.read_text()
    said = ast.get_docstring(ast.parse(text)) if file.suffix == ".py" else re.sub(r"^(//|/\*)[\s*]*|\s*\*/", "", text)
    assert said, f"{file} does not say what it is for; give it a docstring"
    return said.splitlines()[0].replace("|", r"\|")


if __name__ == "__main__":
    main()
