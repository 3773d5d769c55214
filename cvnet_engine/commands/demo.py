"""`demo`: build, index, search, evaluation and serving on the generated images that ship with the package."""

from __future__ import annotations

import json
import shutil
from importlib.util import find_spec
from pathlib import Path

from cvnet_engine import console
from cvnet_engine.benchmarks.accuracy.dataset import Dataset, load
from cvnet_engine.benchmarks.accuracy.evaluation import Timed
from cvnet_engine.benchmarks.serving import Request, Server, fetch
from cvnet_engine.benchmarks.tables import Table
from cvnet_engine.commands import build, evaluate, index, search
from cvnet_engine.engine.bundle import Bundle
from cvnet_engine.engine.errors import counted, install_hint
from cvnet_engine.options import BuildOptions, DemoOptions, IndexOptions, SearchOptions
from cvnet_engine.pages.evaluation import accuracy, judged
from cvnet_engine.pages.page import Page
from cvnet_engine.pages.rendering import render

WEIGHTS, DEPTH = "demo", 50
PICTURES = Path(__file__).parents[1] / "demo"  # data set written by `python -m scenes demo cvnet_engine`
SIZE = "320x240"  # of the pictures, px
SHORTLIST = 20  # candidates reranked
SHOWN = 10  # results of each query on the page


def run(options: DemoOptions) -> None:
    out = options.out
    out.mkdir(parents=True, exist_ok=True)
    bundle_path, gallery_path = out / "bundle", out / "gallery"

    console.say(f"1. Images of generated buildings in {out / 'data'}")
    folder = shutil.copytree(PICTURES, out / "data" / PICTURES.name, dirs_exist_ok=True)
    dataset = load(out / "data", PICTURES.name)
    console.say(f"   {counted(len(dataset.images), 'database image')}, {counted(len(dataset.queries), 'query')}\n")

    console.say(f"2. cvnet-engine build --weights {WEIGHTS} --depth {DEPTH} --out {bundle_path} --sizes {SIZE}")
    build.run(BuildOptions(WEIGHTS, DEPTH, bundle_path, sizes=SIZE))

    console.say(
        f"\n3. cvnet-engine index {folder / 'jpg'} --bundle {bundle_path} --gallery {gallery_path} --max-side 0"
    )
    index.run(IndexOptions([folder / "jpg"], bundle_path, gallery_path, max_side=0))

    query = dataset.queries[0]
    console.say(
        f"\n4. cvnet-engine search {query} --bundle {bundle_path} --gallery {gallery_path} --rerank {SHORTLIST}"
    )
    search.run(SearchOptions(bundle_path, gallery_path, [query], top_k=SHOWN, rerank=SHORTLIST))

    console.say(
        f"\n5. cvnet-engine eval --dataset {dataset.name} --data-dir {out / 'data'} --bundle {bundle_path} "
        f"--gallery {gallery_path} --rerank {SHORTLIST} --against pytorch"
    )
    bundle = Bundle(bundle_path)
    outcomes = {
        "engine": evaluate.engine_evaluation(dataset, bundle, [SHORTLIST], gallery_path),
        "reference": evaluate.reference_evaluation(dataset, bundle, [SHORTLIST]),
    }
    evaluate.show(outcomes, [SHORTLIST])
    page = out / "report.html"
    console.write_file(page, render(report(dataset, bundle, outcomes)))
    console.say(f"\n6. The rankings, with pictures: {page}")
    console.say(f"\n7. cvnet-engine serve --bundle {bundle_path} --gallery {gallery_path}")
    check_page(bundle_path, gallery_path)


def check_page(bundle: Path, gallery: Path) -> None:
    """Start the server, send the requests of the search page, and stop the server.

    Raises:
        CvnetError: the server does not answer.
    """
    if find_spec("uvicorn") is None:
        console.say(f"   the search page is not installed: {install_hint('serve')}")
        return
    with Server(bundle, gallery, None) as server:
        for path in ("/", "/readyz"):
            fetch(server.port, Request("page", path))
        (image,) = json.loads(fetch(server.port, Request("images", "/v1/images?limit=1")))["images"]
        query = json.dumps({"id": image["id"], "top_k": SHOWN, "rerank": SHORTLIST}).encode()
        json_body = {"Content-Type": "application/json"}
        found = json.loads(fetch(server.port, Request("search", "/v1/search", query, json_body)))
    console.say(
        f"   the page answers, and a search found {counted(len(found['results']), 'image')}: start it and try it"
    )


def report(dataset: Dataset, bundle: Bundle, outcomes: dict[str, Timed]) -> Page:
    """Return the page: each query's reranked results with ground truth, then accuracy and time."""
    engine, _ = outcomes["engine"]
    queries = tuple(judged(query, dataset, number, SHORTLIST, SHOWN) for number, query in enumerate(engine.queries))
    return Page(
        title="cvnet-engine demo",
        lead=f"{len(dataset.queries)} queries among {len(dataset.images)} generated images, best {SHORTLIST} reranked",
        banner=console.notice(bundle.manifest),
        queries=queries,
        tables=(accuracy(outcomes, [SHORTLIST]), seconds(outcomes)),
        footer=f"cvnet-engine, {bundle.manifest.model}",
    )


def seconds(outcomes: dict[str, Timed]) -> Table:
    rows = tuple((who, f"{s['index']:.1f}", f"{s['queries']:.1f}", str(e.pairs)) for who, (e, s) in outcomes.items())
    note = "The engine reads the database features from the gallery that 'index' filled."
    return Table("Time, seconds", ("", "database", "queries and pairs", "pairs scored"), rows, note)
