"""Every source file is listed with its purpose."""

from docs import files
from tests.test_imports import ALLOWED


def test_architecture_lists_every_file():
    text = files.DOCUMENT.read_text()
    assert files.updated(text, files.ROOT) == text, "run python docs/files.py"
    assert set(files.PACKAGES) == set(ALLOWED)


def test_a_file_is_listed_with_its_purpose(tmp_path):
    room = tmp_path / "engine" / "room"
    room.mkdir(parents=True)
    (room / "__init__.py").write_text('"""Nothing but words."""\n')
    (room / "a.py").write_text('"""What it is | for.\n\nMore."""\n')
    (room / "b.c").write_text("// In C.\n//\n// More.\nint x;\n")
    (room / "c.h").write_text("/* Declared. */\n")
    rows = [line for line in files.listed(tmp_path).splitlines() if line.startswith(("###", "| `"))]
    assert rows == [
        "### engine/room/",
        r"| `a.py` | What it is \| for. |",
        "| `b.c` | In C. |",
        "| `c.h` | Declared. |",
    ]
