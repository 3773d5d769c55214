"""Requests and responses of the API, which define the OpenAPI schema."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from cvnet_engine.engine.contract import Array
from cvnet_engine.engine.errors import CvnetError, GalleryError
from cvnet_engine.engine.gallery.filter import Filter, day
from cvnet_engine.engine.presets import PRESETS, Preset
from cvnet_engine.engine.retrieval import ranking as rankings
from cvnet_engine.engine.retrieval.ranking import Ranking, near_duplicates
from cvnet_engine.engine.retrieval.searcher import Plan, RerankWith
from cvnet_engine.server.served_gallery import Snapshot

MOST = 1000  # results, candidates or listed images per request


def split(value: Any) -> Any:
    """Split a form's `x1,y1,x2,y2`."""
    return value.split(",") if isinstance(value, str) else value


BoxField = Annotated[
    tuple[float, float, float, float],
    BeforeValidator(split),
    Field(description="Crop the query to x1, y1, x2, y2 in pixels of the upright image; in a form, x1,y1,x2,y2."),
]


class QueryRequest(BaseModel):
    """A query image: uploaded in the form field `image`, or the id of a gallery image."""

    model_config = ConfigDict(extra="forbid")

    id: Annotated[str | None, Field(description="A gallery image, instead of an upload.")] = None
    box: BoxField | None = None
    deadline_s: Annotated[float, Field(gt=0, le=600, description="Give up after this many seconds.")] = 120

    def own_row(self, snapshot: Snapshot) -> int | None:
        """Return the query's row if it is a gallery image, which its results omit; None for an upload."""
        return None if self.id is None else snapshot.row(self.id)


def a_day(text: str) -> str:
    """Validate a date.

    Raises:
        ValueError: the text is not empty, a year, a month or a day.
    """
    try:
        if text:
            day(text)
    except GalleryError as error:
        raise ValueError(str(error)) from error
    return text


Day = Annotated[str, AfterValidator(a_day)]


class Filters(BaseModel):
    """Filters on images of the gallery. A date filter leaves out images without a date."""

    name: Annotated[str, Field(description="Only images whose path contains this, in any case.")] = ""
    folder: Annotated[str, Field(description="Only images below this folder.")] = ""
    taken_from: Annotated[Day, Field(description="Only images taken then or later: 2019, 2019-06 or 2019-06-15.")] = ""
    taken_to: Annotated[Day, Field(description="Only images taken then or earlier: 2019, 2019-06 or 2019-06-15.")] = ""

    def matching(self, snapshot: Snapshot) -> Array | None:
        """Return the matching rows (n,) int64, ascending; None for all."""
        return snapshot.matching(Filter(self.name, self.folder, self.taken_from, self.taken_to))


class ListRequest(Filters):
    offset: Annotated[int, Field(ge=0)] = 0
    limit: Annotated[int, Field(ge=1, le=MOST)] = 60


class SearchRequest(QueryRequest, Filters):
    top_k: Annotated[int, Field(ge=1, le=MOST, description="Number of results.")] = 10
    rerank: Annotated[
        int | None, Field(ge=0, le=MOST, description="Candidates to rerank; 0 for none; null for the server's preset.")
    ] = None
    method: Annotated[
        RerankWith | None,
        Field(description="Reranking method: pair scores (cvnet), superglobal, or both; null for the preset's."),
    ] = None
    rerank_full: Annotated[
        int | None,
        Field(ge=0, le=MOST, description="Coarse-to-fine: candidates scored at full resolution; null: the preset's."),
    ] = None

    @model_validator(mode="after")
    def require_plan(self) -> Self:
        """Check that the options are valid together.

        Raises:
            ValueError: they are not.
        """
        try:
            self.plan(PRESETS["exact"])
        except CvnetError as error:
            raise ValueError(str(error)) from error
        return self

    def plan(self, preset: Preset) -> Plan:
        return preset.plan(self.top_k, self.rerank, self.method, self.rerank_full)


class RerankRequest(QueryRequest):
    candidates: Annotated[
        list[str], Field(min_length=1, max_length=MOST, description="Ids or paths of gallery images, best first.")
    ]


class Login(BaseModel):
    token: str


class ImageEntry(BaseModel):
    id: str
    path: str
    taken: Annotated[str | None, Field(description="By the camera's clock, as 2019-06-15T12:00:00; null if unknown.")]


class RankedImage(ImageEntry):
    """A gallery image in a ranking. `rank` and `before` count from 1."""

    rank: int
    score: Annotated[float, Field(description="Final score, which orders the results.")]
    similarity: Annotated[float, Field(description="Similarity of the global descriptors.")]
    refined: Annotated[float | None, Field(description="SuperGlobal's similarity; null if not computed.")]
    rerank_score: Annotated[float | None, Field(description="Pair score at full resolution; null if not computed.")]
    pooled_score: Annotated[float | None, Field(description="Pair score at half resolution; null if not computed.")]
    before: Annotated[int | None, Field(description="Rank by similarity, or on the candidates of the request.")]
    same_as: Annotated[
        str | None,
        Field(description="Id of the better result that this one is a near-duplicate of."),
    ]


class Missing(BaseModel):
    """Images that were not searched because shard workers did not answer. They are being restarted."""

    images: int
    workers: int
    of: Annotated[int, Field(description="Shard workers in total.")]


class SearchResponse(BaseModel):
    model_config = ConfigDict(serialize_by_alias=True)

    query: Annotated[ImageEntry | None, Field(description="The query if it is a gallery image; null for an upload.")]
    results: list[RankedImage]
    pairs: Annotated[int, Field(description="Pairs scored at full resolution.")]
    images: Annotated[int, Field(description="Number of images searched.")]
    partial: Annotated[bool, Field(description="True if some images could not be searched.")]
    missing: Annotated[Missing | None, Field(description="How many; null if there are none.")]
    way: Annotated[
        Literal["exact", "ann"],
        Field(serialization_alias="global", description="Global search: exact, or by an approximate index (ann)."),
    ]
    seconds: Annotated[dict[str, float], Field(description="Seconds by stage: features, global, pooled, rerank.")]
    notice: Annotated[str | None, Field(description="Warning about an untrained or demonstration model.")]


class PairScores(BaseModel):
    """Progress of a stream: pairs scored so far, and the newest scores by image id."""

    done: int
    total: int
    scores: dict[str, float]


class DescriptorResponse(BaseModel):
    descriptor: Annotated[list[float], Field(description="2048 values, unit norm.")]
    features_id: Annotated[str, Field(description="Descriptors of equal ids and scales can be compared.")]


class ImageList(BaseModel):
    images: list[ImageEntry]
    total: Annotated[int, Field(description="Number of matching images, of which this is one page.")]


class Span(BaseModel):
    """Days, as 2019-06-15."""

    first: str
    last: str


class GalleryDescription(BaseModel):
    images: int
    folders: Annotated[dict[str, int], Field(description="Folders with images directly in them, and how many.")]
    taken: Annotated[Span | None, Field(description="Dates of the oldest and newest image; null if unknown.")]
    model: str
    features_id: str
    max_side_px: int | None
    scales: tuple[float, ...]
    maps: str
    notice: str | None


class ProblemDocument(BaseModel):
    """An error, as a problem document of RFC 9457."""

    type: str
    title: str
    status: int
    detail: str


def ranked_images(ranking: Ranking, before: Iterable[int], snapshot: Snapshot) -> list[RankedImage]:
    """Return the results of a ranking; `before` has rows in the order before reranking."""
    firsts = ranking.rows[near_duplicates(snapshot.gallery.descriptors[ranking.rows])].tolist()
    return [
        RankedImage(
            **{**vars(hit), **dict(entry(hit.row, snapshot))}, same_as=snapshot.id(first) if first != hit.row else None
        )
        for hit, first in zip(rankings.hits(ranking, before, snapshot.gallery.paths), firsts, strict=True)
    ]


def entry(row: int, snapshot: Snapshot) -> ImageEntry:
    return ImageEntry(id=snapshot.id(row), path=snapshot.shown_path(row), taken=snapshot.taken_at(row))
