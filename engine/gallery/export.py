"""Export of a gallery's features to NumPy's npz and to Parquet."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable, Iterable, Iterator
from typing import IO, Any

import numpy as np

from cvnet_engine.engine.contract import Array
from cvnet_engine.engine.errors import GalleryError, install_hint
from cvnet_engine.engine.gallery.reader import Gallery
from cvnet_engine.engine.geometry import AREA_SCALES, DESCRIPTOR_DIM, format_scales
from cvnet_engine.engine.retrieval.blocks import Descriptors

CHUNK = 4096  # descriptors in memory at once: 32 MiB
GROUP, GROUP_WITH_MAPS = 4096, 16  # rows per Parquet row group
Done = Callable[[int], None]


def write_npz(gallery: Gallery, stream: IO[bytes], with_maps: bool, done: Done = lambda _: None) -> None:
    """Write an npz of `paths` (n,) and `digests` (n,) text, `descriptors` (n, 2048) float32, and the settings.

    With maps, image i has `maps/i/0` to `maps/i/2`, (256, h, w) float16, which `numpy.load` reads one at a time.
    `done(n)` is called after each n images.

    Raises:
        GalleryError: stored features are damaged.
    """
    with zipfile.ZipFile(stream, "w") as archive:
        paths = np.array([str(path) for path in gallery.paths], np.str_)
        digests = np.array([gallery.stamp(row).digest for row in range(len(gallery))], np.str_)
        write_member(archive, "paths", paths.dtype, paths.shape, [paths])
        write_member(archive, "digests", digests.dtype, digests.shape, [digests])
        for name, value in made_by(gallery).items():
            write_member(archive, name, np.array(value).dtype, (), [np.array(value)])
        shape = (len(gallery), DESCRIPTOR_DIM)
        write_member(archive, "descriptors", np.dtype(np.float32), shape, chunks(gallery.descriptors))
        for row in range(len(gallery)):
            for scale, array in enumerate(maps(gallery, row) if with_maps else ()):
                write_member(archive, f"maps/{row}/{scale}", array.dtype, array.shape, [array])
            done(1)


def write_member(
    archive: zipfile.ZipFile, name: str, dtype: np.dtype[Any], shape: tuple[int, ...], parts: Iterable[Array]
) -> None:
    """Write an array of an npz part by part."""
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
        np.lib.format.write_array_header_2_0(member, header)
        for part in parts:
            member.write(part.tobytes())


def chunks(descriptors: Descriptors) -> Iterator[Array]:
    return (descriptors[start : start + CHUNK] for start in range(0, len(descriptors), CHUNK))


def maps(gallery: Gallery, row: int) -> list[Array]:
    """Return the three maps (256, h, w) of an image as float16; compressed maps are decoded to float32 and rounded."""
    return [array.astype(np.float16) for array in gallery.features(row).maps]


def write_parquet(gallery: Gallery, stream: IO[bytes], with_maps: bool, done: Done = lambda _: None) -> None:
    """Write a Parquet file with `path`, `digest` and `descriptor` per image, and the settings as schema metadata.

    With maps, `map_0` to `map_2` are the bytes of float16 arrays, whose shapes are in `map_0_shape` to `map_2_shape`.
    Bytes of a path that are not UTF-8 become U+FFFD. `done(n)` is called after each n images.

    Raises:
        GalleryError: pyarrow is not installed, or stored features are damaged.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise GalleryError(f"Parquet needs {error.name}: {install_hint('parquet')}, or export to .npz") from error
    scales = range(len(AREA_SCALES) if with_maps else 0)
    descriptor = pyarrow.list_(pyarrow.float32(), DESCRIPTOR_DIM)
    fields = [("path", pyarrow.string()), ("digest", pyarrow.string()), ("descriptor", descriptor)]
    fields += [(f"map_{scale}", pyarrow.large_binary()) for scale in scales]
    fields += [(f"map_{scale}_shape", pyarrow.list_(pyarrow.int32(), 3)) for scale in scales]
    schema = pyarrow.schema(fields, {name: str(value) for name, value in made_by(gallery).items()})
    size = GROUP_WITH_MAPS if with_maps else GROUP
    with parquet.ParquetWriter(stream, schema) as writer:
        for start in range(0, len(gallery), size):
            rows = range(start, min(start + size, len(gallery)))
            flat = pyarrow.array(gallery.descriptors[rows.start : rows.stop].reshape(-1))
            columns = {
                "path": [os.fsencode(gallery.paths[row]).decode(errors="replace") for row in rows],
                "digest": [gallery.stamp(row).digest for row in rows],
                "descriptor": pyarrow.FixedSizeListArray.from_arrays(flat, DESCRIPTOR_DIM),
            }
            found = [maps(gallery, row) for row in rows] if with_maps else []
            for scale in scales:
                columns[f"map_{scale}"] = [arrays[scale].tobytes() for arrays in found]
                columns[f"map_{scale}_shape"] = [arrays[scale].shape for arrays in found]
            writer.write_table(pyarrow.table(columns, schema))
            done(len(rows))


def made_by(gallery: Gallery) -> dict[str, str | int]:
    """Return the settings that must be equal for features to be comparable."""
    info = gallery.info
    return {
        "features_id": info.features_id,
        "weights": info.weights,
        "max_side_px": info.max_side_px or 0,
        "scales": format_scales(info.scales),
    }
