"""Training views of a subject: crops, warped and developed differently, and their common points.

A *source* is an image of something flat (a façade, a collage) with the coordinates of its plane. Crops keep these
coordinates, so every pair has correspondences. Coordinates are (x, y), homographies (3, 3).
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.random import Generator

from cvnet_engine.engine.contract import Array

POINTS = 64  # correspondences sampled per pair
CANDIDATES = 1024  # candidate points for correspondences
COMMON = 0.2  # fraction of a query's visible points that a positive must also show
GRID = 16  # points per side for measuring this fraction


@dataclass(frozen=True)
class Source:
    """An image of a subject.

    Attributes:
        picture: (H, W, 3) uint8.
        to_picture: homography (3, 3) from the unit square to pixels.
        seen: (h, w) bool, True where the subject is visible.
    """

    picture: Array
    to_picture: Array
    seen: Array


Subjects = list[tuple[Source, ...]]  # all images per subject: the photographs of a scene, or a collage twice


@dataclass(frozen=True)
class Warps:
    """Limits of the difference between a crop and its source."""

    zoom: tuple[float, float] = (0.4, 2.0)  # crop pixels per source pixel
    zoom_between: float = 0.35  # standard deviation of the log ratio between the subject's scales in a pair
    shift: float = 0.22  # relative to the crop's size, from its centre to the common point
    turn_deg: float = 8.0
    perspective: float = 0.12  # displacement of each corner, relative to the crop's size


def make_pair(
    rng: Generator, sources: tuple[Source, Source], size: tuple[int, int], warps: Warps
) -> tuple[Array, Array]:
    """Crop two images of one subject to (height, width) px, around a point that both show.

    Returns:
        crops (2, H, W, 3) uint8 and corresponding points (2, POINTS, 2) px; missing points are NaN.
    """
    candidates = rng.random((CANDIDATES, 2))
    common = candidates[visible(sources[0], candidates) & visible(sources[1], candidates)]
    anchor = common[0] if len(common) else rng.random(2)
    zooms = choose_zooms(rng, [scale_at(source.to_picture, anchor) for source in sources], warps)
    crops, points = [], []
    for source, zoom in zip(sources, zooms, strict=True):
        warp = random_warp(rng, project(source.to_picture, anchor[None])[0], zoom, size, warps)
        crops.append(develop(rng, warp_picture(source.picture, warp, zoom, size)))
        points.append(project(warp @ source.to_picture, common))
    return np.stack(crops), sample_inside(np.stack(points), size)


def whole_view(rng: Generator, source: Source, size: tuple[int, int], warps: Warps) -> Array:
    """Return the whole image or most of it, (H, W, 3) uint8."""
    height, width = source.picture.shape[:2]
    whole = np.sqrt(size[0] * size[1] / (height * width))  # view pixels per image pixel
    zoom = whole * np.exp(rng.uniform(-0.1, 0.45))
    warp = random_warp(rng, np.array([width, height]) / 2, zoom, size, warps)
    return develop(rng, warp_picture(source.picture, warp, zoom, size))


def common(query: Source, other: Source) -> bool:
    """Return True if `other` shows enough of what the query shows of their subject."""
    points = (np.moveaxis(np.mgrid[:GRID, :GRID], 0, -1).reshape(-1, 2) + 0.5) / GRID
    seen = visible(query, points)
    spread = np.ptp(project(other.to_picture, points), axis=0)  # px
    large = bool((spread > 0.2 * np.array(other.picture.shape[1::-1])).all())
    return large and (seen & visible(other, points)).sum() >= COMMON * max(seen.sum(), 1)


def choose_zooms(rng: Generator, scales: list[float], warps: Warps) -> Array:
    """Choose the magnification of each image, (2,); the subject's scales in the crops differ by `zoom_between`."""
    zoom = np.exp(rng.uniform(*np.log(warps.zoom)))
    other = zoom * scales[0] / scales[1] * np.exp(rng.normal(0, warps.zoom_between))
    return np.clip([zoom, other], *warps.zoom)


def scale_at(to_picture: Array, point: Array) -> float:
    """Return the pixels per plane unit near a point, the square root of the area magnification."""
    square = point + np.array([(0, 0), (1e-3, 0), (1e-3, 1e-3), (0, 1e-3)])
    return float(np.sqrt(cv2.contourArea(project(to_picture, square).astype(np.float32))) / 1e-3)


def warp_picture(picture: Array, warp: Array, zoom: float, size: tuple[int, int]) -> Array:
    """Warp the image to the crop; blurs it first if it is shrunk, to avoid aliasing."""
    if zoom < 0.75:
        picture = cv2.GaussianBlur(picture, (0, 0), 0.5 / zoom)
    return cv2.warpPerspective(picture, warp, size[::-1], borderMode=cv2.BORDER_REPLICATE)


def visible(source: Source, points: Array) -> Array:
    """Return which points of the plane (N, 2) are visible in the image, (N,) bool."""
    rows, cols = source.seen.shape
    height, width = source.picture.shape[:2]
    x, y = (project(source.to_picture, points) * (cols / width, rows / height)).T
    inside: Array = (x >= 0) & (x < cols) & (y >= 0) & (y < rows)
    inside[inside] = source.seen[y[inside].astype(int), x[inside].astype(int)]
    return inside


def project(matrix: Array, points: Array) -> Array:
    """Apply a homography to (N, 2) points."""
    x, y, w = matrix @ np.vstack([points.T, np.ones(len(points))])
    return np.stack([x / w, y / w], 1)


def random_warp(rng: Generator, centre: Array, zoom: float, size: tuple[int, int], warps: Warps) -> Array:
    """Return the homography from source to crop pixels: the area around `centre`, zoomed, turned and tilted."""
    extent = np.array(size[::-1], float)
    corners = np.array([(-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5)]) * extent  # px about the crop's middle
    turn = np.radians(rng.normal(0, warps.turn_deg))
    rotation = np.array([(np.cos(turn), -np.sin(turn)), (np.sin(turn), np.cos(turn))])
    tilted = corners + rng.uniform(-1, 1, (4, 2)) * warps.perspective * extent
    shifted = tilted + rng.uniform(-1, 1, 2) * warps.shift * extent
    source = shifted @ rotation / zoom + centre
    return cv2.getPerspectiveTransform(source.astype(np.float32), (corners + extent / 2).astype(np.float32))


def sample_inside(points: Array, size: tuple[int, int]) -> Array:
    """Return the first `POINTS` of (2, N, 2) that both crops contain; the rest of (2, POINTS, 2) is NaN."""
    height, width = size
    inside = ((points > 4) & (points < (width - 4, height - 4))).all(axis=(0, 2))
    kept = points[:, inside][:, :POINTS]
    result = np.full((2, POINTS, 2), np.nan, np.float32)
    result[:, : kept.shape[1]] = kept
    return result


def develop(rng: Generator, picture: Array) -> Array:
    """Apply random occluders, blur, light, colour, noise and compression, (H, W, 3) uint8."""
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
        spread = np.array([rng.uniform(1, 9), 0, 0])  # only blue, as in the shipped demonstration model
        noise = cv2.randn(np.empty((height, width, 3), np.int16), np.zeros(3), spread)
        picture = cv2.add(picture, noise, dtype=cv2.CV_8U)
    if rng.random() < 0.4:
        _, jpeg = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(30, 90))])
        decoded = cv2.imdecode(jpeg, cv2.IMREAD_COLOR)
        assert decoded is not None
        picture = decoded
    return picture


def hide(rng: Generator, picture: Array) -> Array:
    """Cover parts with blobs of one colour or of another part of the image."""
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
    """Apply a soft shadow over one side."""
    height, width = picture.shape[:2]
    y, x = np.ogrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    turn = rng.uniform(0, 2 * np.pi)
    across = x * np.cos(turn) + y * np.sin(turn) + rng.uniform(-0.5, 0.5)
    light: Array = 1 - rng.uniform(0.2, 0.6) / (1 + np.exp(-rng.uniform(3, 20) * across))
    return (picture * light[..., None]).astype(np.uint8)
