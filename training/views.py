"""Two views of one picture's subject: crops, warped and developed differently, and the points they have in common.

A *source* is a picture of something flat (a façade, a collage) with its plane's coordinates. Crops know their plane
too, so that every pair comes with correspondences. All coordinates are (x, y), homogeneous matrices (3, 3).
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.random import Generator

from cvnet_engine.engine.contract import Array

POINTS = 64  # correspondences sampled in a pair
CANDIDATES = 1024  # points tried to find them
COMMON = 0.2  # least share of what a picture shows of its subject that another must show too, to be its positive
GRID = 16  # points a side that measure it


@dataclass(frozen=True)
class Source:
    """A picture (H, W, 3) uint8, unit square to its pixels (3, 3), and where its subject is seen, (h, w) bool."""

    picture: Array
    to_picture: Array
    seen: Array


@dataclass(frozen=True)
class Warps:
    """How far a crop may depart from its source."""

    zoom: tuple[float, float] = (0.4, 2.0)  # crop pixels a pixel of the source
    zoom_between: float = 0.35  # log, standard deviation between the scales of the subject in a pair
    shift: float = 0.22  # of the crop's size, between its centre and the common point
    turn_deg: float = 8.0
    perspective: float = 0.12  # of the crop's size, each corner


@dataclass(frozen=True)
class Pair:
    """Two crops (2, H, W, 3) uint8 and corresponding points (2, POINTS, 2) px, of which some may be void (NaN)."""

    crops: Array
    points: Array


def make_pair(rng: Generator, sources: tuple[Source, Source], size: tuple[int, int], warps: Warps) -> Pair:
    """Crops of (height, width) px from two pictures of one subject, round a point that both show."""
    candidates = rng.random((CANDIDATES, 2))
    common = candidates[visible(sources[0], candidates) & visible(sources[1], candidates)]
    anchor = common[0] if len(common) else rng.random(2)
    zooms = choose_zooms(rng, [scale_at(source.to_picture, anchor) for source in sources], warps)
    crops, points = [], []
    for source, zoom in zip(sources, zooms, strict=True):
        warp = random_warp(rng, project(source.to_picture, anchor[None])[0], zoom, size, warps)
        crops.append(develop(rng, warp_picture(source.picture, warp, zoom, size)))
        points.append(project(warp @ source.to_picture, common))
    return Pair(np.stack(crops), sample_inside(np.stack(points), size))


def whole_view(rng: Generator, source: Source, size: tuple[int, int], warps: Warps) -> Array:
    """The whole picture or most of it, (H, W, 3) uint8."""
    height, width = source.picture.shape[:2]
    whole = np.sqrt(size[0] * size[1] / (height * width))  # pixels of the view a pixel of the picture
    zoom = whole * np.exp(rng.uniform(-0.1, 0.45))
    warp = random_warp(rng, np.array([width, height]) / 2, zoom, size, warps)
    return develop(rng, warp_picture(source.picture, warp, zoom, size))


def common(query: Source, other: Source) -> bool:
    """Whether a picture shows enough of what the query shows of their subject."""
    points = (np.moveaxis(np.mgrid[:GRID, :GRID], 0, -1).reshape(-1, 2) + 0.5) / GRID
    seen = visible(query, points)
    spread = np.ptp(project(other.to_picture, points), axis=0)  # px
    large = bool((spread > 0.2 * np.array(other.picture.shape[1::-1])).all())
    return large and (seen & visible(other, points)).sum() >= COMMON * max(seen.sum(), 1)


def choose_zooms(rng: Generator, scales: list[float], warps: Warps) -> Array:
    """How much each picture is magnified, (2,), so that the subject's scales in the crops differ as asked for."""
    zoom = np.exp(rng.uniform(*np.log(warps.zoom)))
    other = zoom * scales[0] / scales[1] * np.exp(rng.normal(0, warps.zoom_between))
    return np.clip([zoom, other], *warps.zoom)


def scale_at(to_picture: Array, point: Array) -> float:
    """Pixels a unit of the plane near a point: the square root of the area that a small square takes."""
    square = point + np.array([(0, 0), (1e-3, 0), (1e-3, 1e-3), (0, 1e-3)])
    return float(np.sqrt(cv2.contourArea(project(to_picture, square).astype(np.float32))) / 1e-3)


def warp_picture(picture: Array, warp: Array, zoom: float, size: tuple[int, int]) -> Array:
    """The crop, without aliasing: what is shrunk is blurred first."""
    if zoom < 0.75:
        picture = cv2.GaussianBlur(picture, (0, 0), 0.5 / zoom)
    return cv2.warpPerspective(picture, warp, size[::-1], borderMode=cv2.BORDER_REPLICATE)


def visible(source: Source, points: Array) -> Array:
    """Which points of the plane (N, 2) the picture shows, (N,) bool."""
    rows, cols = source.seen.shape
    height, width = source.picture.shape[:2]
    x, y = (project(source.to_picture, points) * (cols / width, rows / height)).T
    inside: Array = (x >= 0) & (x < cols) & (y >= 0) & (y < rows)
    inside[inside] = source.seen[y[inside].astype(int), x[inside].astype(int)]
    return inside


def project(matrix: Array, points: Array) -> Array:
    """(N, 2) points under a homography."""
    x, y, w = matrix @ np.vstack([points.T, np.ones(len(points))])
    return np.stack([x / w, y / w], 1)


def random_warp(rng: Generator, centre: Array, zoom: float, size: tuple[int, int], warps: Warps) -> Array:
    """Source pixels to crop pixels: what surrounds `centre`, zoomed, turned and tilted."""
    extent = np.array(size[::-1], float)
    corners = np.array([(-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5)]) * extent  # px about the crop's middle
    turn = np.radians(rng.normal(0, warps.turn_deg))
    rotation = np.array([(np.cos(turn), -np.sin(turn)), (np.sin(turn), np.cos(turn))])
    tilted = corners + rng.uniform(-1, 1, (4, 2)) * warps.perspective * extent
    shifted = tilted + rng.uniform(-1, 1, 2) * warps.shift * extent
    source = shifted @ rotation / zoom + centre
    return cv2.getPerspectiveTransform(source.astype(np.float32), (corners + extent / 2).astype(np.float32))


def sample_inside(points: Array, size: tuple[int, int]) -> Array:
    """The first `POINTS` of (2, N, 2) that both crops contain; the rest of (2, POINTS, 2) is NaN."""
    height, width = size
    inside = ((points > 4) & (points < (width - 4, height - 4))).all(axis=(0, 2))
    kept = points[:, inside][:, :POINTS]
    result = np.full((2, POINTS, 2), np.nan, np.float32)
    result[:, : kept.shape[1]] = kept
    return result


def develop(rng: Generator, picture: Array) -> Array:
    """Light, colour, lens, sensor, compression and what walks by, (H, W, 3) uint8."""
    if rng.random() < 0.35:
        picture = hide(rng, picture)
    height, width = picture.shape[:2]
    if rng.random() < 0.4:
        picture = cv2.GaussianBlur(picture, (0, 0), rng.uniform(0.4, 1.8))
    gamma, gain = np.exp(rng.normal(0, 0.2)), np.exp(rng.normal(0, 0.15))
    balance = np.exp(rng.normal(0, 0.08, 3)) * gain
    levels = np.clip((np.arange(256)[:, None] / 255) ** gamma * balance, 0, 1) * 255
    contrast = np.exp(rng.normal(0, 0.15))
    table = np.clip((levels - 128) * contrast + 128 + rng.normal(0, 12), 0, 255).astype(np.uint8)  # (256, 3)
    picture = cv2.LUT(picture, table[None])
    if rng.random() < 0.15:
        picture = cv2.cvtColor(cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    if rng.random() < 0.4:
        picture = cast_shade(rng, picture)
    if rng.random() < 0.5:
        cv2.setRNGSeed(int(rng.integers(2**31)))
        spread = np.array([rng.uniform(1, 9), 0, 0])  # in blue alone: so the demonstration model was trained
        noise = cv2.randn(np.empty((height, width, 3), np.int16), np.zeros(3), spread)
        picture = cv2.add(picture, noise, dtype=cv2.CV_8U)
    if rng.random() < 0.4:
        _, jpeg = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(30, 90))])
        decoded = cv2.imdecode(jpeg, cv2.IMREAD_COLOR)
        assert decoded is not None
        picture = decoded
    return picture


def hide(rng: Generator, picture: Array) -> Array:
    """Blobs of one colour or of another part of the picture, over up to a third of it."""
    picture = picture.copy()
    height, width = picture.shape[:2]
    for _ in range(int(rng.integers(1, 4))):
        mask = np.zeros((height, width), np.uint8)
        centre, axes = rng.uniform(0, 1, 2) * (width, height), rng.uniform(0.04, 0.22, 2) * (width, height)
        cv2.ellipse(mask, (tuple(centre), tuple(2 * axes), rng.uniform(0, 180)), 255, -1)
        paint = np.roll(picture, tuple(rng.integers(0, (height, width))), (0, 1)) if rng.random() < 0.5 else None
        picture[mask > 0] = rng.integers(0, 256, 3) if paint is None else paint[mask > 0]
    return picture


def cast_shade(rng: Generator, picture: Array) -> Array:
    """A soft shadow over one side."""
    height, width = picture.shape[:2]
    y, x = np.ogrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    turn = rng.uniform(0, 2 * np.pi)
    across = x * np.cos(turn) + y * np.sin(turn) + rng.uniform(-0.5, 0.5)
    light: Array = 1 - rng.uniform(0.2, 0.6) / (1 + np.exp(-rng.uniform(3, 20) * across))
    return (picture * light[..., None]).astype(np.uint8)
