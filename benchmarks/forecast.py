"""What large collections take, from measured stages: `python -m benchmarks.forecast` writes docs/scale.md.

Everything is read from `benchmarks/results`: what an image and a pair take from `cpu.json`, what a gallery takes as it
grows from `scale.json`. Nothing is measured here. What is assumed is said in the document.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from cvnet_engine.benchmarks.latency.report import Report
from cvnet_engine.benchmarks.readme import RESULTS, ROOT
from cvnet_engine.benchmarks.tables import Table, markdown
from cvnet_engine.engine.errors import DatasetError
from cvnet_engine.engine.files import write_atomically
from cvnet_engine.engine.geometry import MAP_DIM, Size, map_size, unit_map_sizes

DOCUMENT = ROOT / "docs" / "scale.md"
BEGIN, END = "<!-- {}: written by python -m benchmarks.forecast -->", "<!-- end of {} -->"
IMAGE: Size = (768, 1024)
POSITION_BYTES = {"float16": 2 * MAP_DIM, "int8": MAP_DIM + 4, "coded:24": 24}  # by kind of maps
COLLECTIONS = (1_000_000, 100_000_000)  # images
SHORTLIST = 100
DEADLINE_H = 24.0
MACHINE_BYTES = 64e9  # memory of a machine that searches
MAPPED_SHARE = 0.75  # of that, for descriptors
# Images and queries, as the ground truth files of Revisited Oxford/Paris list them.
DATASETS = {"ROxford": (4_993, 70), "RParis": (6_322, 70)}
DISTRACTORS = 1_001_001
SETUPS = 3  # shortlists of a query: Easy, Medium, Hard


@dataclass(frozen=True)
class Stages:
    """What was measured on one machine, at `IMAGE` size.

    Attributes:
        index_s: seconds to index an image, by precision.
        rerank_s: seconds to rerank `SHORTLIST` candidates, by precision.
        scan_s: of an exact search, a row.
        open_s: of the processor, to open a gallery, an image.
        stored_bytes: on the disk, an image, beside its maps.
        mapped_bytes: that a process that searches has mapped, an image.
        private_bytes: of them, what the system cannot take back.
    """

    machine: str
    index_s: Mapping[str, float]
    rerank_s: Mapping[str, float]
    scan_s: float
    open_s: float
    stored_bytes: float
    mapped_bytes: float
    private_bytes: float

    @classmethod
    def read(cls, results: Path) -> Self:
        report = Report.from_json(results / "cpu.json")
        galleries = json.loads((results / "scale.json").read_text())["galleries"]
        size = f"{IMAGE[0]}x{IMAGE[1]}"
        records = [r for r in report.records if r.series == "stages"]
        scans = [r for r in records if r.stage == "global search" and r.method != "NumPy" and r.count]
        indexing = {r.method: r.ms.median / 1e3 for r in records if (r.stage, r.size) == ("indexing", size)}
        reranking = {
            r.method: r.ms.median / 1e3 for r in records if (r.stage, r.size, r.count) == ("rerank", size, SHORTLIST)
        }
        return cls(
            machine=f"{report.threads} threads of an {report.machine['cpu']}",
            index_s=indexing,
            rerank_s={precision: reranking[precision] for precision in indexing},
            scan_s=scans[-1].ms.median / 1e3 / (scans[-1].count or 1),
            open_s=slope(galleries, "open_cpu_s"),
            stored_bytes=slope(galleries, "stored"),
            mapped_bytes=slope(galleries, "searched_resident"),
            private_bytes=slope(galleries, "opened_private"),
        )


def slope(galleries: list[dict[str, Any]], value: str) -> float:
    """What each further image adds, from the smallest gallery to the largest."""
    few, many = galleries[0], galleries[-1]
    return float(many[value] - few[value]) / float(many["images"] - few["images"])


def map_bytes(kind: str) -> int:
    """Of an image's three maps."""
    return POSITION_BYTES[kind] * sum(height * width for height, width in unit_map_sizes(map_size(IMAGE)))


def storage(stages: Stages) -> Table:
    rows = [
        (
            kind,
            f"{map_bytes(kind) / 1e3:,.0f} KB",
            *(size(images * (map_bytes(kind) + stages.stored_bytes)) for images in COLLECTIONS),
        )
        for kind in POSITION_BYTES
    ]
    rows.append(("of that, all but the maps", "", *(size(images * stages.stored_bytes) for images in COLLECTIONS)))
    return Table("Storage", ("maps", "of an image", *map(count, COLLECTIONS)), tuple(rows))


def indexing(stages: Stages) -> Table:
    rows = []
    for precision, seconds in stages.index_s.items():
        hours = [images * seconds / 3600 for images in COLLECTIONS]
        machines = [f"{math.ceil(h / DEADLINE_H):,}" for h in hours]
        rows.append((precision, f"{seconds:.2f}", *(f"{h:,.0f}" for h in hours), *machines))
    columns = (
        "",
        "seconds an image",
        *(f"{count(images)}, hours of one machine" for images in COLLECTIONS),
        *(f"{count(images)} in {DEADLINE_H:.0f} hours, machines" for images in COLLECTIONS),
    )
    return Table("Indexing", columns, tuple(rows))


def searching(stages: Stages) -> Table:
    """Exact search by machines that have an equal share of the rows each, and reranking, which does not grow."""
    rows = []
    for images in COLLECTIONS:
        machines = math.ceil(images * stages.mapped_bytes / (MAPPED_SHARE * MACHINE_BYTES))
        share = images / machines
        rerank = " / ".join(f"{seconds:.1f}" for seconds in stages.rerank_s.values())
        rows.append(
            (
                count(images),
                f"{machines:,}",
                size(share * stages.mapped_bytes),
                size(share * stages.private_bytes),
                f"{share * stages.open_s:.1f}",
                f"{share * stages.scan_s:.2f}",
                rerank,
            )
        )
    columns = (
        "images",
        f"machines of {MACHINE_BYTES / 1e9:.0f} GB",
        "mapped by each",
        "private",
        "to open, s",
        "exact search, s a query",
        f"best {SHORTLIST} reranked, s ({' / '.join(stages.rerank_s)})",
    )
    return Table("Searching", columns, tuple(rows))


def evaluation(stages: Stages) -> Table:
    """Revisited Oxford and Paris with the distractors of R1M."""
    images = DISTRACTORS + sum(database for database, _ in DATASETS.values())
    queries = sum(asked for _, asked in DATASETS.values())
    rows = []
    for precision, index_s in stages.index_s.items():
        describe_h = (images + queries) * index_s / 3600
        pair_s = stages.rerank_s[precision] / SHORTLIST
        least, most = (queries * SHORTLIST * shortlists * pair_s / 3600 for shortlists in (1, SETUPS))
        scan_s = stages.scan_s * sum((DISTRACTORS + n) * asked for n, asked in DATASETS.values())
        rows.append(
            (
                precision,
                f"{describe_h:,.0f}",
                f"{math.ceil(describe_h / DEADLINE_H)}",
                f"{scan_s:.0f}",
                f"{least:.1f} to {most:.1f}",
            )
        )
    columns = (
        "",
        f"{images:,} images and {queries} queries described, hours",
        f"machines for {DEADLINE_H:.0f} hours",
        f"{queries} exact searches, s",
        f"{queries} x {SHORTLIST} to {SETUPS * SHORTLIST} pairs scored, hours",
    )
    kept = ", ".join(f"{size(images * (map_bytes(kind) + stages.stored_bytes))} as {kind}" for kind in POSITION_BYTES)
    return Table("ROxford and RParis with R1M", columns, tuple(rows), f"Both in one gallery: {kept}.")


def count(images: int) -> str:
    """Images in words."""
    return f"{images // 1_000_000}M"


def size(of: float) -> str:
    """Bytes to about three digits."""
    unit, name = next((u, n) for u, n in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB")) if of >= u or n == "MB")
    return f"{of / unit:.3g} {name}"


def sections(results: Path) -> dict[str, str]:
    """The document's parts that are written here."""
    stages = Stages.read(results)
    lead = (
        f"Of {stages.machine}, images of {IMAGE[1]}x{IMAGE[0]} px: seconds from "
        "[cpu.json](../benchmarks/results/cpu.json), bytes from [scale.json](../benchmarks/results/scale.json).\n"
    )
    parts = [lead]
    for table in (storage(stages), indexing(stages), searching(stages), evaluation(stages)):
        parts += [markdown(table, text_columns=1), *([f"{table.note}\n"] if table.note else [])]
    return {"measured": (results / "scale.md").read_text().strip(), "forecast": "\n".join(parts).strip()}


def updated(document: str, parts: Mapping[str, str]) -> str:
    """The document with those parts made anew.

    Raises:
        DatasetError: it has no place for one.
    """
    for name, text in parts.items():
        begin, end = BEGIN.format(name), END.format(name)
        before, begun, rest = document.partition(begin)
        _, ended, after = rest.partition(end)
        if not (begun and ended):
            raise DatasetError(f"no section from '{begin}' to '{end}'; put these lines where the tables belong")
        document = f"{before}{begin}\n\n{text}\n\n{end}{after}"
    return document


def main() -> None:
    write_atomically(DOCUMENT, updated(DOCUMENT.read_text(), sections(RESULTS)))


if __name__ == "__main__":
    main()
