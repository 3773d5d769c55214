"""Property-based fuzzing of images, bundles and galleries: a correct result, or an error of one line."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cvnet_engine.engine.bundle import MANIFEST
from cvnet_engine.engine.errors import BundleError, CvnetError, GalleryError, ImageError
from cvnet_engine.engine.gallery.info import INFO
from cvnet_engine.engine.images import decode
from tests.hostile.images import Images, see
from tests.hostile.stored import Bundles, Galleries, see_bundle, see_gallery

IMAGES = Images()
# the same examples in each run, so that a failure is due to a change
SETTINGS = settings(derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
brief_and_long = pytest.mark.parametrize("examples", [40, pytest.param(5000, marks=pytest.mark.slow)])
TEXT = st.text(st.sampled_from('azAZ09 \0\n"\\/.-é漢\U0001f600\ud800'))  # Unicode's table would take seconds to load
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)


@st.composite
def damaged(draw: st.DrawFn, whole: bytes) -> bytes:
    """Bytes with parts replaced, removed, repeated or cut off."""
    data = whole
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        length = draw(st.sampled_from((0, 1, 2, 4, 100)))
        data = data[:start] + draw(st.binary(max_size=8) | st.just(data[start : start + 50])) + data[start + length :]
    return data


@st.composite
def changed(draw: st.DrawFn, content: dict[str, Any]) -> str:
    """A JSON object with fields replaced, added or removed; or any other JSON."""
    if draw(st.booleans()):
        return draw(JSON.map(json.dumps))
    content = dict(content)
    for key in draw(st.lists(st.sampled_from(list(content)), min_size=1, max_size=3)):
        content[key] = draw(JSON)
    if draw(st.booleans()):
        del content[draw(st.sampled_from(list(content)))]
    return json.dumps(content)


@contextlib.contextmanager
def one_line(error: type[CvnetError]) -> Iterator[None]:
    """Let the error pass if its message is one line."""
    try:
        yield
    except error as refusal:
        if "\n" in str(refusal):
            raise


@brief_and_long
def test_damaged_images(examples):
    @settings(SETTINGS, max_examples=examples)
    @given(st.sampled_from(list(IMAGES.whole.values())).flatmap(damaged) | st.binary())
    def read(data: bytes) -> None:
        with one_line(ImageError):
            see(decode(data))

    read()


@brief_and_long
def test_changed_manifests(tmp_path, examples):
    bundles = Bundles(tmp_path)
    file = bundles.good / MANIFEST
    whole = json.loads(file.read_text())

    @settings(SETTINGS, max_examples=examples)
    @given(changed(whole))
    def read(manifest: str) -> None:
        file.write_text(manifest)
        with one_line(BundleError):
            assert see_bundle(bundles.good) == bundles.expected

    read()


@brief_and_long
def test_damaged_galleries(tmp_path, examples):
    galleries = Galleries(tmp_path / "g")

    @settings(SETTINGS, max_examples=examples)
    @given(st.data())
    def read(data: st.DataObject) -> None:
        folder = shutil.copytree(galleries.good, tmp_path / "copy", dirs_exist_ok=True)
        file = folder / data.draw(st.sampled_from([INFO, "shard-00000.sqlite", "shard-00002.sqlite"]))
        whole = file.read_bytes()
        if file.name == INFO and data.draw(st.booleans()):
            file.write_text(data.draw(changed(json.loads(whole))))
        else:
            file.write_bytes(data.draw(damaged(whole)))
        try:
            with one_line(GalleryError):
                # the checksum of gallery.json does not cover every field: `weights` may be any text
                assert see_gallery(folder)[1:] == galleries.expected[1:]
        finally:
            shutil.rmtree(folder)

    read()
