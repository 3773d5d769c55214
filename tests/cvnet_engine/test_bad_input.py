"""Bad input of every command: one line that says what is wrong, exit code 1, and nothing new on the disk."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from cvnet_engine.cvnet import checkpoint
from cvnet_engine.engine.bundle import Bundle
from cvnet_engine.engine.gallery.reader import Gallery
from cvnet_engine.engine.gallery.writer import GalleryWriter
from tests.bundles import copy_bundle
from tests.cvnet_engine.program import assert_one_line
from tests.galleries import INFO, STAMP, features

SEARCH = "search {query} --bundle {bundle} --gallery {gallery}"
INDEX = "index {query} --bundle {bundle} --gallery new"
EVAL = "eval --dataset tiny --data-dir {data} --bundle {bundle}"
BUILD = "build --weights seeded:0 --depth 50 --backend onnxruntime --out new"


class Evil:
    """Runs a command when unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch executed",)


def write_weights(folder: Path) -> None:
    """Write checkpoints: whole ones (of zeros, so small), and damaged ones."""
    for depth in (50, 101):
        shapes = checkpoint.published_shapes(depth)
        torch.save({name: torch.zeros(()).expand(shape) for name, shape in shapes.items()}, folder / f"{depth}.pyth")
    whole = (folder / "50.pyth").read_bytes()
    (folder / "truncated.pyth").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.pyth").touch()
    (folder / "text.pyth").write_text("Dear diary")
    torch.save({"other": torch.zeros(3)}, folder / "other.pyth")


def write_bundles(bundle: Path, folder: Path) -> None:
    for kind, name in (("cut", Bundle(bundle).graph("reranker").name), ("future", "manifest.json")):
        content = (bundle / name).read_bytes()
        copy_bundle(bundle, folder / kind)
        changed = content.replace(b'"format": 2', b'"format": 9') if kind == "future" else content[:-1]
        (folder / kind / name).write_bytes(changed)


def write_galleries(gallery: Path, query: Path, folder: Path) -> None:
    with Gallery(gallery) as opened:
        info, descriptor = opened.info, opened.descriptors[4].tobytes()
    GalleryWriter(folder / "no-images", info).close()
    GalleryWriter(folder / "other-model", replace(info, features_id="other")).close()
    with GalleryWriter(folder / "other-info", INFO) as writer:
        writer.put(query, STAMP, features(0))
    shard = shutil.copytree(gallery, folder / "flipped") / "shard-00000.sqlite"
    content = shard.read_bytes()
    at = content.index(descriptor) + 100
    shard.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])


def write_data_sets(data: Path, folder: Path) -> None:
    for kind, key in (("evil", ""), ("database", "imlist"), ("queries", "qimlist")):
        shutil.copytree(data / "tiny", folder / kind / "tiny")
        if not key:
            (folder / kind / "tiny" / "gnd_tiny.pkl").write_bytes(pickle.dumps(Evil()))
            continue
        truth = json.loads((folder / kind / "tiny" / "gnd_tiny.json").read_text())
        image = folder / kind / "tiny" / "jpg" / f"{truth[key][0]}.jpg"
        image.write_bytes(image.read_bytes()[:800])


@pytest.fixture(scope="module")
def root(bundle, gallery, data, query, bad_photos, tmp_path_factory) -> Path:
    """The current folder of all cases."""
    folder = tmp_path_factory.mktemp("bad_input")
    for name in ("weights", "bundles", "galleries", "sets", "nothing", "thesis"):
        (folder / name).mkdir()
    write_weights(folder / "weights")
    write_bundles(bundle, folder / "bundles")
    write_galleries(gallery, query, folder / "galleries")
    write_data_sets(data, folder / "sets")
    (folder / "thesis" / "thesis.tex").write_text("precious")
    (folder / "file").touch()
    (folder / "old").mkdir()
    shutil.copy(bundle / "manifest.json", folder / "old")
    (folder / "old" / "w.pyth").touch()
    (folder / "photos").symlink_to(bad_photos)
    os.mkfifo(folder / "pipe.jpg")
    return folder


CASES = [
    *((f"{SEARCH} --bbox={box}", "bbox") for box in ("0,0,1000,10", "50,10,20,60", "0,0,nan,50", "0,0,inf,50")),
    *((f"{SEARCH} --bbox={box}", "bbox") for box in ("1,2,3", "a,b,c,d")),
    (f"{SEARCH} --bbox 5,5,15,60", "{query}: 10x55 pixels are too few"),
    *(
        (f"search photos/{name} --bundle {{bundle}} --gallery {{gallery}}", f"photos/{name}".rstrip("/"))
        for name in ("truncated.jpg", "text.jpg", "huge.png", "1x1.jpg", "absent.jpg", "")
    ),
    ("search pipe.jpg --bundle {bundle} --gallery {gallery}", "pipe.jpg: a pipe"),
    (f"{SEARCH} --gallery absent", "absent: not a gallery"),
    (f"{SEARCH} --gallery nothing", "nothing: not a gallery"),
    (f"{SEARCH} --gallery file", "file: not a gallery"),
    (f"{SEARCH} --gallery galleries/no-images", "holds no images yet"),
    (f"{SEARCH} --gallery galleries/other-info", "made with another model"),
    (f"{SEARCH} --gallery galleries/flipped", "damaged"),
    *(
        (f"{command} --bundle {folder}", folder)
        for command in (SEARCH, INDEX, EVAL)
        for folder in ("absent", "nothing", "bundles/cut", "bundles/future")
    ),
    ("index pipe.jpg --bundle {bundle} --gallery new", "pipe.jpg: a pipe"),
    ("index absent --bundle {bundle} --gallery new", "absent"),
    ("index nothing --bundle {bundle} --gallery new", "nothing"),
    (f"index {'n' * 300} --bundle {{bundle}} --gallery new", "n" * 300),
    (f"{INDEX} --gallery file", "file: gallery not accessible"),
    (f"{INDEX} --gallery file/below", "file/below: gallery not accessible"),
    (f"{INDEX} --gallery galleries/other-info", "made with another model"),
    (f"{INDEX} --gallery {{gallery}} --max-side 512", "made with --max-side 1024"),
    (f"{INDEX} --maps int8", "maps 'int8': expected float16, coded or coded:BYTES"),
    (f"{EVAL} --dataset absent", "no ground truth"),
    (f"{EVAL} --rerank many", "--rerank 'many'"),
    (f"{EVAL} --rerank -5", "--rerank '-5'"),
    (f"{EVAL} --rerank 1,,2", "--rerank '1,,2'"),
    (f"{EVAL} --distractors absent.txt", "absent.txt: not readable"),
    (f"{EVAL} --rerank 5 --rerank-full 2 --rerank-with superglobal", "superglobal scores no pair"),
    (f"{EVAL} --gallery galleries/other-model", "made with another model"),
    (f"{EVAL} --gallery {{gallery}}", "made with --max-side 1024; got 0"),
    (f"{EVAL} --data-dir sets/evil", "do not use this file"),
    (f"{EVAL} --rerank 0 --data-dir sets/database", "sets/database/tiny/jpg/"),
    (f"{EVAL} --rerank 0 --data-dir sets/queries", "sets/queries/tiny/jpg/"),
    (f"{BUILD} --weights weights/absent.pyth", "no such checkpoint"),
    (f"{BUILD} --weights weights", "no such checkpoint"),
    (f"{BUILD} --weights weights/truncated.pyth", "not a readable checkpoint"),
    (f"{BUILD} --weights weights/empty.pyth", "not a readable checkpoint"),
    (f"{BUILD} --weights weights/text.pyth", "not a readable checkpoint"),
    (f"{BUILD} --weights weights/101.pyth", "use --depth 101"),
    (f"{BUILD} --weights weights/other.pyth", "missing (conv2ds.0.weight, "),
    (f"{BUILD} --weights seeded:x", "expected 'seeded' or 'seeded:N'"),
    (f"{BUILD} --depth 34", "expected 50 or 101"),
    (f"{BUILD} --backend abacus", "'abacus' is unknown"),
    (f"{BUILD} --precision fp1", "'fp1' is unknown"),
    (f"{BUILD} --precision bf16", "cannot run descriptor in bf16; expected openvino"),
    (f"{BUILD} --precision int8 --backend openvino", "expected --calibration DIR"),
    (f"{BUILD} --calibration absent", "absent: No such file"),
    (f"{BUILD} --sizes 1024", "expected a folder, or WIDTHxHEIGHT"),
    (f"{BUILD} --sizes 1024x768,8x8", "'8x8': expected"),
    (f"{BUILD} --descriptor superglobal --sizes 80x600", "less than 92 px, which SuperGlobal's descriptor needs"),
    (f"{BUILD} --out file", "file: exists and is not a bundle"),
    (f"{BUILD} --out thesis", "thesis: exists and is not a bundle"),
    (f"{BUILD} --out old --weights old/w.pyth", "--out old: would take the place of old"),
    (f"{BUILD} --out old --weights demo --calibration old", "--out old: would take the place of old"),
    *(
        (f"search q.jpg --bundle absent --gallery absent {option} {file}", f"{file}: cannot be written")
        for option in ("--json", "--html")
        for file in ("absent/out", "nothing", "file/out")
    ),
    ("search q.jpg --bundle b --gallery g --json out --html out", "in each other's place; give each its own"),
    ("search q.jpg --bundle b --gallery g --json - --html -", "in each other's place; give each its own"),
    ("search q.jpg --bundle b --gallery g --json - --format paths", "in each other's place; give each its own"),
    ("bench --bundle b --json out.md --markdown ./out.md", "in each other's place; give each its own"),
]


@pytest.mark.parametrize(("command", "message"), CASES)
def test_one_line_says_what_is_wrong(cli, root, bundle, gallery, data, query, monkeypatch, command, message):
    monkeypatch.chdir(root)
    monkeypatch.setattr(torch.onnx, "export", None)  # a build must fail before its work
    before = sorted(root.iterdir())
    given = {"bundle": bundle, "gallery": gallery, "data": data, "query": query}
    assert_one_line(cli(command.format(**given)), message.format(**given))
    assert sorted(root.iterdir()) == before
