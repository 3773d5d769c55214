"""What the API takes and gives; OpenAPI is made from these."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from cvnet_engine.server.collection import Snapshot
from engine.retrieval import hits as found
from engine.retrieval.ranking import Ranking
from engine.retrieval.searcher import Plan, RerankWith

MOST = 1000  # results, and pairs, that one request may ask for


def split(value: Any) -> Any:
    """A form's `x1,y1,x2,y2` as its parts."""
    return value.split(",") if isinstance(value, str) else value


Box = Annotated[
    tuple[float, float, float, float],
    BeforeValidator(split),
    Field(description="Crop the query to x1, y1, x2, y2 in pixels of the upright image; in a form, x1,y1,x2,y2."),
]


class QueryRequest(BaseModel):
    """An image to look at: uploaded in the form's field `image`, or one of the gallery."""

    model_config = ConfigDict(extra="forbid")

    id: Annotated[str | None, Field(description="A gallery image, instead of an upload.")] = None
    box: Box | None = None
    deadline_s: Annotated[float, Field(gt=0, le=600, description="Give up after this many seconds.")] = 120


class SearchRequest(QueryRequest):
    top_k: Annotated[int, Field(ge=1, le=MOST, description="Results wanted.")] = 10
    rerank: Annotated[int, Field(ge=0, le=MOST, description="Candidates to rerank; 0 for none.")] = 100
    method: Annotated[
        RerankWith, Field(description="What reranks: pair scores, SuperGlobal's descriptors, or both.")
    ] = "cvnet"
    fine: Annotated[
        int | None, Field(ge=0, le=MOST, description="Candidates to score in full, all others on pooled maps alone.")
    ] = None
    name: Annotated[str, Field(description="Only images whose path contains this, in any case.")] = ""
    folder: Annotated[str, Field(description="Only images below this folder.")] = ""

    @property
    def plan(self) -> Plan:
        return Plan(self.top_k, self.rerank, self.method, self.fine)


class RerankRequest(QueryRequest):
    candidates: Annotated[
        list[str], Field(min_length=1, max_length=MOST, description="Ids or paths of gallery images, best first.")
    ]


class Login(BaseModel):
    token: str


class Hit(BaseModel):
    """A gallery image in a ranking. `rank` and `before` count from 1."""

    rank: int
    id: str
    path: str
    score: Annotated[float, Field(description="What the ranking is by.")]
    similarity: Annotated[float, Field(description="Of the global descriptors.")]
    refined: Annotated[float | None, Field(description="SuperGlobal's similarity, where it took part.")]
    rerank_score: Annotated[float | None, Field(description="The pair score, where the pair was scored.")]
    pooled_score: Annotated[float | None, Field(description="The pair score on pooled maps, where there is one.")]
    before: Annotated[int | None, Field(description="Rank by similarity, or on the shortlist that was sent.")]


class Results(BaseModel):
    results: list[Hit]
    pairs: Annotated[int, Field(description="Pairs scored in full.")]
    images: Annotated[int, Field(description="Images that were searched.")]
    seconds: Annotated[dict[str, float], Field(description="Work by stage: features, global, rerank.")]
    notice: Annotated[str | None, Field(description="What must be said of an untrained or demonstration model.")]


class Scores(BaseModel):
    """Progress of a stream: pairs done, and the scores of those that were just done, by id."""

    done: int
    total: int
    scores: dict[str, float]


class Descriptor(BaseModel):
    descriptor: Annotated[list[float], Field(description="2048 values, unit norm.")]
    features_id: Annotated[str, Field(description="Descriptors of equal ids can be compared.")]


class ImageEntry(BaseModel):
    id: str
    path: str


class ImageList(BaseModel):
    images: list[ImageEntry]
    total: Annotated[int, Field(description="Images that match, of which these are a part.")]


class GalleryDescription(BaseModel):
    images: int
    folders: Annotated[dict[str, int], Field(description="Folders with images directly in them, and how many.")]
    model: str
    features_id: str
    max_side_px: int | None
    maps: str
    notice: str | None


class ProblemDocument(BaseModel):
    """RFC 9457."""

    type: str
    title: str
    status: int
    detail: str


def hits(ranking: Ranking, before: Iterable[int], snapshot: Snapshot) -> list[Hit]:
    """A ranking's rows as results; `before` are rows in an earlier order."""
    return [
        Hit(
            rank=hit.rank,
            id=snapshot.id(hit.row),
            path=snapshot.shown_path(hit.row),
            score=hit.score,
            similarity=hit.similarity,
            refined=hit.refined,
            rerank_score=hit.rerank_score,
            pooled_score=hit.pooled_score,
            before=hit.before,
        )
        for hit in found.hits(ranking, before, snapshot.gallery.paths)
    ]
