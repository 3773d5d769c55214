"""Constants of the model: its graphs, strides, channels and scales, and the map sizes of an image.

Sizes are (height, width), in pixels of an image or positions of a map. Map sizes are computed in integers that stay
symbolic in an exported graph. Every product stays below 2^31 because some runtimes compute shapes in 32 bits.
"""

from __future__ import annotations

from collections.abc import Iterable

from cvnet_engine.engine.errors import GalleryError

Size = tuple[int, int]
Scales = tuple[float, ...]

IMAGE_GRAPHS = ("descriptor", "features")  # image -> descriptor; image -> descriptor and feature maps
GRAPH_NAMES = (*IMAGE_GRAPHS, "reranker")  # feature maps of a query and of database images -> pair scores
DESCRIPTOR_NAMES = {"cvnet": "CVNet", "superglobal": "SuperGlobal"}

STRIDE_PX = 16  # image pixels per position of a full-scale map, the output of the trunk's third stage
DESCRIPTOR_DIM = 2048
LOCAL_DIM = 1024  # channels of the trunk's map
MAP_DIM = 256  # channels of the projected feature maps
IMAGE_SCALES = (0.7071, 1.0, 1.4142)  # of the image's sides, one descriptor each; the maps come from the middle one
AREA_SCALES = (0.25, 0.5, 1.0)  # of the map's area, one feature map each
PAIR_LAYERS = (
    (len(AREA_SCALES) ** 2, 16, 5, 2),
    (16, 16, 3, 1), (16, 32, 3, 2),
    (32, 32, 3, 1), (32, 32, 3, 1), (32, 64, 3, 2),
    (64, 64, 3, 1), (64, 64, 3, 1), (64, 128, 3, 1),
)  # fmt: skip  # inputs, outputs, kernel, stride of the centre-pivot 4D convolutions that score a pair
MIN_SIDE_PX = STRIDE_PX + 1  # two positions, the fewest that the quarter-area map can be made from


def half(length: int) -> int:
    """`round(length · √0.25)`, halves to even."""
    return (length + (length % 4) // 3) // 2


def root_half(length: int) -> int:
    """`round(length · √0.5)`: length/√2 is irrational, so no halves arise.

    13860/19601 is a convergent of √0.5, exact below 33,461 positions.
    """
    return (2 * 13860 * length + 19601) // (2 * 19601)


REDUCED_LENGTHS = (half, root_half)  # of a side at `AREA_SCALES`, but for the last, which is 1


def map_size(image_px: Size) -> Size:
    """Positions of an image's full-scale map."""
    return -(-image_px[0] // STRIDE_PX), -(-image_px[1] // STRIDE_PX)


def unit_map_sizes(full: Size) -> list[Size]:
    """Positions of the three unit maps, for `AREA_SCALES`, from those of the full-scale map."""
    return [(reduced(full[0]), reduced(full[1])) for reduced in REDUCED_LENGTHS] + [full]


def pooled_size(full: Size) -> Size:
    """Half the positions a side, rounded up, and two at least, which the quarter-area map needs."""
    return max(2, (full[0] + 1) // 2), max(2, (full[1] + 1) // 2)


def scaled(image_px: Size, scale: float) -> Size:
    """An image's size at one of `IMAGE_SCALES`, as `cv2.resize` rounds it."""
    return round(image_px[0] * scale), round(image_px[1] * scale)


def require_scales(scales: Iterable[float]) -> Scales:
    """Return the scales in ascending order, without repeats.

    Raises:
        GalleryError: a scale that is not in `IMAGE_SCALES`, or no scale 1, which the feature maps need.
    """
    wanted = tuple(sorted(set(scales)))
    if 1 not in wanted or not set(wanted) <= set(IMAGE_SCALES):
        raise GalleryError(
            f"scales {format_scales(wanted)}: expected 1 and any others of {format_scales(IMAGE_SCALES)}"
        )
    return wanted


def parse_scales(text: str) -> Scales:
    """Parse scales such as `0.7071,1`.

    Raises:
        GalleryError: the text is not a list of `IMAGE_SCALES` with 1 among them.
    """
    try:
        return require_scales(map(float, text.split(",")))
    except ValueError as error:
        raise GalleryError(f"scales {text!r}: expected numbers such as {format_scales(IMAGE_SCALES)}") from error


def format_scales(scales: Iterable[float]) -> str:
    """Format scales as the command line takes them."""
    return ",".join(f"{scale:g}" for scale in scales)
