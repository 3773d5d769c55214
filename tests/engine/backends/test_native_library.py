"""The compiled library: a private cache, and errors with cause and remedy."""

import ctypes
import json
import os
import shutil
import subprocess
from dataclasses import asdict

import numpy as np
import pytest

from cvnet_engine.engine import backends
from cvnet_engine.engine.backends.native import library as native
from cvnet_engine.engine.backends.native.engine import NativeReranker
from cvnet_engine.engine.backends.native.library import cached, compiler, is_here
from cvnet_engine.engine.bundle import Bundle, GraphFile, sha256
from cvnet_engine.engine.errors import BackendError, BundleError, CvnetWarning
from cvnet_engine.engine.files import private_folder
from cvnet_engine.engine.retrieval.engines import Engines
from tests.bundles import copy_bundle
from tests.engine.backends.native_fuzz import random_weights

COMPILER = """#!/bin/sh
for last; do test "$before" = -o && out=$last; before=$last; done
echo compiled >> {log}
exec cp {ready} "$out"
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty cache folder for `library`, as in a new process."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    native.library.cache_clear()
    yield tmp_path / "cache" / "cvnet-engine"
    native.library.cache_clear()


@pytest.fixture
def runs(folder, tmp_path, monkeypatch):  # noqa: ARG001  the cache is empty before it counts
    """A fake compiler that copies a ready library; returns how often it has run."""
    ready, log, script = tmp_path / "ready.so", tmp_path / "log", tmp_path / "compiler"
    source = tmp_path / "nothing.c"
    names = ("accelerated", "create", "prepare_query", "score", "shrink", "product", "free")
    source.write_text("".join(f"int cvnet_{name}(void) {{ return 1; }}\n" for name in names))
    subprocess.run(["cc", "-shared", "-fPIC", str(source), "-o", str(ready)], check=True)
    script.write_text(COMPILER.format(log=log, ready=ready))
    script.chmod(0o755)
    monkeypatch.setenv("CC", str(script))
    return lambda: len(log.read_text().splitlines()) if log.exists() else 0


def load_again():
    native.library.cache_clear()
    return native.library()


def test_a_cached_library_needs_no_compiler(folder, runs, monkeypatch):
    assert isinstance(load_again(), ctypes.CDLL)
    assert [file.suffix for file in folder.iterdir()] == [".so"]  # nothing else is left
    monkeypatch.setattr(shutil, "which", lambda _: None)
    assert is_here()
    load_again()
    assert runs() == 1


@pytest.mark.usefixtures("runs")
def test_a_change_of_any_source_file_recompiles(folder, tmp_path, monkeypatch):
    load_again()
    copy = tmp_path / "source"
    shutil.copytree(native.SOURCE.parent, copy)
    monkeypatch.setattr(native, "SOURCE", copy / native.SOURCE.name)
    assert cached(folder)
    for file in sorted(copy.glob("*.[ch]")):
        with file.open("a") as stream:
            stream.write("// changed\n")
        assert not cached(folder), file.name
        load_again()


@pytest.mark.parametrize("damage", [lambda whole: whole[:100], lambda _: b"", lambda whole: whole[:-1] + b"?"])
def test_a_damaged_library_is_recompiled_and_never_loaded(folder, runs, damage):
    load_again()
    (file,) = folder.glob("*.so")
    whole = file.read_bytes()
    file.unlink()  # the old one is mapped
    file.write_bytes(damage(whole))
    assert not cached(folder)
    load_again()
    assert runs() == 2
    assert [f.read_bytes() == whole for f in folder.iterdir()] == [True]


@pytest.mark.usefixtures("runs")
def test_the_folder_is_private(folder):
    load_again()
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.chmod(0o755)  # as it was made before
    load_again()
    assert folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o770])
def test_a_folder_writable_by_others_is_refused(folder, runs, mode):
    folder.mkdir(parents=True)
    folder.chmod(mode)
    with pytest.raises(BackendError, match=r"other users may write.*set XDG_CACHE_HOME"):
        load_again()
    assert runs() == 0


def test_another_users_folder_is_refused(folder, monkeypatch):
    private_folder(folder)
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(BackendError, match="only this user may write"):
        private_folder(folder)


def test_a_cache_that_cannot_be_written_is_an_error(folder, runs):
    folder.parent.write_text("a file where the folder would be")
    with pytest.raises(BackendError, match=r"cvnet-engine: cannot be written \(.*set XDG_CACHE_HOME"):
        load_again()
    assert runs() == 0


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("", "CC is empty"),
        ("gcc '", "is not a command.*No closing quotation.*set it to a C compiler, or unset it"),
        ("no-such-compiler -O2", r"no C compiler \(no-such-compiler\).*install gcc or clang"),
    ],
)
def test_an_unusable_compiler_command_is_an_error(monkeypatch, command, words):
    monkeypatch.setenv("CC", command)
    assert not is_here()
    with pytest.raises(BackendError, match=words):
        compiler()
    with pytest.raises(BackendError, match=words):
        load_again()


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("#!/bin/sh\nkill -SEGV $$", "was stopped by SIGSEGV.*set CC to another compiler"),
        ("#!/bin/sh\necho 'error: no AVX' >&2; exit 1", r"does not compile .*\(error: no AVX\)"),
        ("#!/bin/sh\nprintf '\\377' >&2; exit 1", "does not compile"),
        ("", "cannot be run"),
    ],
)
def test_a_compiler_that_fails_leaves_nothing(folder, tmp_path, monkeypatch, script, words):
    (tmp_path / "failing").write_text(script)
    (tmp_path / "failing").chmod(0o755)
    monkeypatch.setenv("CC", str(tmp_path / "failing"))
    with pytest.raises(BackendError, match=words):
        load_again()
    assert list(folder.iterdir()) == []


@pytest.fixture
def native_bundle(bundle, tmp_path):
    """The test bundle with a native reranker and its graph as the fallback."""
    copy = copy_bundle(bundle, tmp_path / "bundle")
    weights = random_weights(0, copy / "reranker.npz")
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["fallback"] = manifest["graphs"]["reranker"]
    manifest["graphs"]["reranker"] = asdict(GraphFile(weights.name, sha256(weights), "native", "fp32"))
    (copy / "manifest.json").write_text(json.dumps(manifest))
    return copy


@pytest.mark.usefixtures("folder")
def test_without_a_compiler_the_fallback_graph_scores(native_bundle, monkeypatch):
    monkeypatch.setenv("CC", "no-such-compiler")
    with pytest.warns(CvnetWarning, match=r"no C compiler.*onnxruntime scores pairs by the graph"):
        opened = Engines.open(Bundle(native_bundle))
    with opened:
        features = opened.extract(np.random.default_rng(0).integers(0, 255, (64, 80, 3), np.uint8))
        assert 0 <= opened.score(features, [features])[0] <= 1
        assert not isinstance(opened.reranker, NativeReranker)


def test_the_fallback_graph_is_checked_like_the_others(native_bundle):
    (native_bundle / "reranker.onnx").write_bytes(b"changed")
    with pytest.raises(BundleError, match=r"reranker\.onnx: changed since it was built"):
        Bundle(native_bundle)


def test_at_most_one_thread_per_cpu_is_used(monkeypatch):
    monkeypatch.setattr(backends.machine, "usable_cpus", lambda: 2)
    assert backends.usable_threads(None) == backends.usable_threads(2) == 2
    assert backends.usable_threads(1) == 1
    with pytest.warns(CvnetWarning, match="1000 threads were requested; 2 are used"):
        assert backends.usable_threads(1000) == 2
