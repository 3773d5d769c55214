"""Property-based fuzzing of what reads images, bundles and galleries: a right result, or one line that says why not."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
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
# the same examples each time, or more of them and new ones
BRIEF = settings(max_examples=60, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
LONG = settings(BRIEF, max_examples=5000)  # the same each time: what one change found, another did not break
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@st.composite
def damaged(draw: st.DrawFn, whole: bytes) -> bytes:
    """Bytes with parts of them replaced, left out, repeated, or cut off."""
    data = whole
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        length = draw(st.sampled_from((0, 1, 2, 4, 100)))
        data = data[:start] + draw(st.binary(max_size=8) | st.just(data[start : start + 50])) + data[start + length :]
    return data


@st.composite
def changed(draw: st.DrawFn, content: dict[str, Any]) -> str:
    """A JSON object with fields replaced, added or left out; or something else altogether."""
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
    """What is read is as it should be, or there is an error of one line."""
    try:
        yield
    except error as refusal:
        message = str(refusal)
    else:
        return
    assert "\n" not in message


def read_image(data: bytes) -> None:
    with one_line(ImageError):
        see(decode(data))


whole_images = st.sampled_from(list(IMAGES.whole.values())).flatmap(damaged)


@BRIEF
@given(whole_images)
def test_images(data):
    read_image(data)


@pytest.mark.slow
@LONG
@given(whole_images | st.binary())
def test_images_at_length(data):
    read_image(data)


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Bundles:
    return Bundles(tmp_path_factory.mktemp("bundles"))


@pytest.fixture(scope="module")
def galleries(tmp_path_factory: pytest.TempPathFactory) -> Galleries:
    return Galleries(tmp_path_factory.mktemp("galleries") / "g")


def read_manifest(bundles: Bundles, data: st.DataObject) -> None:
    file = bundles.good / MANIFEST
    whole = file.read_text()
    file.write_text(data.draw(changed(json.loads(whole))))
    try:
        with one_line(BundleError):
            assert see_bundle(bundles.good) == bundles.expected
    finally:
        file.write_text(whole)


@BRIEF
@given(data=st.data())
def test_manifests(bundles, data):
    read_manifest(bundles, data)


@pytest.mark.slow
@LONG
@given(data=st.data())
def test_manifests_at_length(bundles, data):
    read_manifest(bundles, data)


def read_gallery(galleries: Galleries, place: Path, data: st.DataObject) -> None:
    folder = shutil.copytree(galleries.good, place / "copy", dirs_exist_ok=True)
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


@BRIEF
@given(data=st.data())
def test_galleries(galleries, tmp_path_factory, data):
    read_gallery(galleries, tmp_path_factory.getbasetemp(), data)


@pytest.mark.slow
@LONG
@given(data=st.data())
def test_galleries_at_length(galleries, tmp_path_factory, data):
    read_gallery(galleries, tmp_path_factory.getbasetemp(), data)
