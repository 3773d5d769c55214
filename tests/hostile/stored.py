"""Hostile bundles and galleries: flipped bits, changed types, missing rows and files, paths outside the folder."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from cvnet_engine.engine.bundle import MANIFEST, Bundle, sha256
from cvnet_engine.engine.gallery.info import INFO
from cvnet_engine.engine.gallery.reader import Gallery
from cvnet_engine.engine.geometry import GRAPH_NAMES
from tests import galleries
from tests.hostile.tiny import write_bundle
from tests.hostile.trial import Case, Refusal, digest

Rng = random.Random
Change = Callable[[Path, Rng], str]  # changes a folder or file, and describes the change
VALUES = (None, True, -1, 0, 1e308, 2**70, "", "x" * 10_000, "\0", "../../etc/passwd", [], [[]], {}, {"a": {}})
OUTSIDE = ("../reranker.onnx", "/etc/passwd", "a/../../b", "..", ".", "", "graph\n.onnx", "\0", "~/x", "-", "a//b")
IMAGES = 6


class Bundles:
    def __init__(self, folder: Path) -> None:
        self.good = write_bundle(folder / "bundle")
        self.expected = see_bundle(self.good)
        self.changes: list[tuple[int, str, Change, bool]] = [
            (3, "bundles: flipped bits", lambda p, r: flip(p / r.choice(names(p)), r), False),
            (2, "bundles: files cut or gone", lambda p, r: take_away(p / r.choice(names(p)), r), True),
            (3, "bundles: wrong types", lambda p, r: retype(p / MANIFEST, r), False),
            (1, "bundles: deep nesting", lambda p, r: nest(p / MANIFEST, r), True),
            (2, "bundles: paths outside", lead_outside, True),
        ]

    def make(self, rng: Rng) -> Case:
        return changed(self.good, self.changes, see_bundle, self.expected, rng)


class Galleries:
    def __init__(self, folder: Path) -> None:
        self.good = folder
        galleries.write(self.good, range(IMAGES), per_shard=2)
        self.expected = see_gallery(self.good)
        self.changes: list[tuple[int, str, Change, bool]] = [
            (5, "galleries: flipped bits", lambda p, r: flip(p / r.choice(shards(p)), r), False),
            (2, "galleries: flipped bits", lambda p, r: flip(p / r.choice(columns(p)), r), False),
            (2, "galleries: files cut or gone", lambda p, r: take_away(p / r.choice(names(p)), r), False),
            (3, "galleries: rows and tables gone", delete, True),
            (3, "galleries: forged rows", forge, False),
            (2, "galleries: wrong types", lambda p, r: retype(p / INFO, r), False),
            (1, "galleries: flipped bits", lambda p, r: flip(p / INFO, r), False),
            (1, "galleries: deep nesting", lambda p, r: nest(p / INFO, r), True),
        ]

    def make(self, rng: Rng) -> Case:
        return changed(self.good, self.changes, see_gallery, self.expected, rng)


def changed(
    good: Path,
    changes: list[tuple[int, str, Change, bool]],
    see: Callable[[Path], object],
    expected: object,
    rng: Rng,
) -> Case:
    """A copy of a good folder after one of the changes, which must be refused (True) or may be harmless (False)."""
    ((_, kind, change, harmful),) = rng.choices(changes, [weight for weight, *_ in changes])
    seed = rng.randrange(2**32)

    def read(place: Path) -> object:
        copy = shutil.copytree(good, place / "copy")
        change(copy, Rng(seed))
        return see(copy)

    return Case(kind, f"seed {seed}", read, Refusal if harmful else expected)


def see_bundle(path: Path) -> object:
    """Digests and backends of the graphs that would run."""
    bundle = Bundle(path)
    return {name: (sha256(bundle.graph(name)), bundle.manifest.graphs[name].backend) for name in GRAPH_NAMES}


def see_gallery(path: Path) -> object:
    """Settings, and every image's name and features."""
    with Gallery(path) as gallery:
        rows = [gallery.features(row) for row in range(len(gallery))]
        made = gallery.info.features_id, gallery.info.max_side_px
        return made, gallery.paths, [digest(f.descriptor.tobytes(), *(m.tobytes() for m in f.maps)) for f in rows]


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir() if not file.name.endswith((".lock", "-shm", "-wal")))


def shards(folder: Path) -> list[str]:
    return [name for name in names(folder) if name.endswith(".sqlite")]


def columns(folder: Path) -> list[str]:
    return [name for name in names(folder) if name.endswith(".columns")]


def flip(file: Path, rng: Rng) -> str:
    data = bytearray(file.read_bytes())
    for _ in range(rng.choice((1, 1, 1, 3, 30))):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    file.write_bytes(data)
    return f"{file.name}: bits flipped"


def take_away(file: Path, rng: Rng) -> str:
    """Remove the file or its end, or put something else in its place."""
    size = file.stat().st_size
    how = rng.choice(("gone", "cut", "empty", "a folder", "a pipe", "a link to a device"))
    if how == "cut":
        os.truncate(file, rng.randrange(size))
        return how
    file.unlink()
    if how == "empty":
        file.touch()
    elif how == "a folder":
        file.mkdir()
    elif how == "a pipe":
        os.mkfifo(file)
    elif how == "a link to a device":
        file.symlink_to("/dev/zero")
    return f"{file.name}: {how}"


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every (container, key) within a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in list(items):
        yield value, key
        yield from places(item)


def retype(file: Path, rng: Rng) -> str:
    """Replace, remove or add a value of a JSON file."""
    content = json.loads(file.read_text())
    container, key = rng.choice(list(places(content)))
    how = rng.randrange(4)
    if how == 0:
        del container[key]
    elif how == 1 and isinstance(container, dict):
        container["unknown"] = rng.choice(VALUES)
    else:
        container[key] = rng.choice([v for v in VALUES if type(v) is not type(container[key])])
    file.write_text(json.dumps(content))
    return f"{file.name}: {key}"


def nest(file: Path, rng: Rng) -> str:
    """Write deeply nested brackets, alone or as a field's value."""
    depth = rng.choice((1000, 100_000, 1_000_000))
    opening, closing = rng.choice((("[", "]"), ('{"a":', "}")))
    value = opening * depth + ("1" + closing * depth if rng.random() < 0.7 else "")
    file.write_text(value if rng.random() < 0.5 else f'{{"format": {value}}}')
    return f"{file.name}: {depth} deep"


def lead_outside(folder: Path, rng: Rng) -> str:
    """Name a file outside the folder as a graph's file, with its correct digest."""
    file = folder / MANIFEST
    content = json.loads(file.read_text())
    name = rng.choice(OUTSIDE)
    target = folder / name if "\0" not in name else None
    graph = content["graphs"][rng.choice(GRAPH_NAMES)]
    graph["file"] = name
    if target and target.is_file():
        graph["sha256"] = sha256(target)
    file.write_text(json.dumps(content))
    return name


def execute(folder: Path, rng: Rng, *statements: str) -> str:
    connection = sqlite3.connect(folder / rng.choice(shards(folder)))
    with contextlib.suppress(sqlite3.IntegrityError):  # such as text for an id
        for statement in statements:
            connection.execute(statement)
    connection.commit()
    connection.close()
    return "; ".join(statements)


def delete(folder: Path, rng: Rng) -> str:
    image, scale = rng.randrange(2), rng.randrange(3)
    statement = rng.choice(
        (
            f"DELETE FROM images WHERE id = {image}",
            f"DELETE FROM maps WHERE image = {image}",
            f"DELETE FROM maps WHERE image = {image} AND scale = {scale}",
            "DELETE FROM images",
            "DELETE FROM maps",
            "DROP TABLE images",
            "DROP TABLE maps",
            "DROP TABLE contents",
        )
    )
    return execute(folder, rng, statement)


def forge(folder: Path, rng: Rng) -> str:
    """Change the values and types of columns, or rename tables."""
    table, columns = rng.choice(
        (
            ("images", ("path", "height", "width", "descriptor", "checksum", "id")),
            ("maps", ("channels", "height", "width", "data", "checksum", "scale")),
        )
    )
    value = rng.choice(("-1", "0", "1", "3", "9223372036854775807", "'text'", "x'00'", "zeroblob(8192)", "0.5"))
    return execute(
        folder,
        rng,
        rng.choice(
            (
                f"UPDATE OR REPLACE {table} SET {rng.choice(columns)} = {value}",
                f"UPDATE OR IGNORE {table} SET {rng.choice(columns)} = {value}",
                "UPDATE contents SET images = 'many'",
                f"UPDATE contents SET images = {rng.choice((-1, 3, 2**62))}",
                f"ALTER TABLE {table} RENAME TO other",
                f"CREATE VIEW odd AS SELECT * FROM {table}",
            )
        ),
    )
