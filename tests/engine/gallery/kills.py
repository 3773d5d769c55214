"""Kills of a process that changes a gallery, at any SQL statement, and any file opened, renamed or removed.

`python -m tests.engine.gallery.kills OPERATION FOLDER` runs an operation in a forked process that kills itself at the
first step; again, on another copy, at a later step, and so on until the operation ends. After each kill the gallery
must be whole, and the same operation must bring it to the state of an undisturbed run.
"""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import sqlite3
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cvnet_engine.engine.gallery.copying import CopyReport, merge
from cvnet_engine.engine.gallery.info import read_info
from cvnet_engine.engine.gallery.inspection import verify
from cvnet_engine.engine.gallery.writer import GalleryWriter
from tests.galleries import LARGE, index_photos, read, rows, write
from tests.pictures import photo

PER_SHARD = 4
STRIDE = {"index": 13, "merge": 19, "remove": 11, "compact": 4}  # steps between kills: about 12 kills each
FILE_EVENTS = ("open", "os.rename", "os.remove", "sqlite3.connect")


def run(work: Callable[[], object], kill_at: int = 0) -> bool:
    """Run in another process, which kills itself at this step; return True if it was killed."""
    process = os.fork()
    if process:
        _, status = os.waitpid(process, 0)
        assert status in (0, signal.SIGKILL)
        return status == signal.SIGKILL
    try:
        die_at(kill_at)
        work()
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def die_at(kill_at: int) -> None:
    steps, connect = itertools.count(1), sqlite3.connect

    def step(*_: object) -> None:
        if next(steps) == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def traced(*place: Any, **options: Any) -> sqlite3.Connection:
        connection = connect(*place, **options)
        connection.set_trace_callback(step)
        return connection

    sqlite3.connect = traced
    sys.addaudithook(lambda event, _: step() if event in FILE_EVENTS else None)


def remove(gallery: Path) -> None:
    with GalleryWriter.reopen(gallery) as writer:
        assert writer.repairs == []
        writer.remove([path for path in writer.paths if int(path.stem) % 4])


def compact(gallery: Path) -> None:
    with GalleryWriter.reopen(gallery) as writer:
        assert writer.repairs == []
        writer.compact()


def merge_all(sources: list[Path], gallery: Path) -> None:
    with GalleryWriter(gallery, read_info(sources[0]), PER_SHARD) as writer:
        for source in sources:
            merge(source, read_info(source), writer, CopyReport())


def operation(name: str, folder: Path) -> tuple[Callable[[Path], object], Path | None]:
    """The operation, and the gallery that it begins with."""
    if name == "index":
        (folder / "photos").mkdir()
        for n in range(6):
            photo(folder / "photos" / f"{n}.jpg", 48, 64, seed=n)
        return lambda gallery: index_photos(folder / "photos", gallery, PER_SHARD), None
    if name == "merge":
        sources = [write(folder / "a", range(6), PER_SHARD), write(folder / "b", range(5, 8), PER_SHARD)]
        return lambda gallery: merge_all(sources, gallery), None
    gallery = write(folder / "begin", range(16), PER_SHARD, sizes=LARGE)
    if name == "compact":
        remove(gallery)
    return {"remove": remove, "compact": compact}[name], gallery


def require_whole(name: str, gallery: Path) -> None:
    if not (gallery / "gallery.json").exists():
        return
    assert verify(gallery).damaged == {}
    if name == "merge":
        read(gallery)
    if name == "remove":
        assert set(read(gallery, LARGE)) >= {0, 4, 8, 12}
    if name == "compact":
        assert read(gallery, LARGE) == [0, 4, 8, 12]


def main() -> None:
    name, folder = sys.argv[1], Path(sys.argv[2])
    work, begin = operation(name, folder)

    def copy(gallery: Path) -> Path:
        return shutil.copytree(begin, gallery) if begin else gallery

    undisturbed = copy(folder / "undisturbed")
    assert not run(lambda: work(undisturbed))
    kills = 0
    for kill_at in itertools.count(1, STRIDE[name]):
        gallery = copy(folder / "killed")
        killed = run(lambda: work(gallery), kill_at)  # noqa: B023
        require_whole(name, gallery)
        assert not run(lambda: work(gallery))  # noqa: B023
        assert rows(gallery) == rows(undisturbed)
        if begin:  # an interrupted write of gallery.json leaves a hidden file
            assert {file.suffix for file in gallery.iterdir()} <= {".json", ".lock", ".sqlite", ".columns"}
        shutil.rmtree(gallery)
        kills += killed
        if not killed:
            break
    sys.stdout.write(f"{kills}\n")


if __name__ == "__main__":
    main()
