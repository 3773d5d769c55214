"""Tables of README and `docs/results.md` from `benchmarks/results`: `python -m benchmarks.lab.readme` writes both."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import scenes
from benchmarks.lab.frontier.report import from_json
from benchmarks.lab.frontier.report import table as points_table
from cvnet_engine.benchmarks.latency.records import Record
from cvnet_engine.benchmarks.latency.report import Report
from cvnet_engine.benchmarks.methods.method import KEEPING, PUBLISHED, REFERENCE
from cvnet_engine.benchmarks.tables import Table, markdown, ms, replace_section, times
from cvnet_engine.engine.files import write_atomically
from cvnet_engine.engine.machine import Machine

ROOT = Path(__file__).resolve().parents[2]
README, DOCUMENT, RESULTS = ROOT / "README.md", ROOT / "docs" / "results.md", ROOT / "benchmarks" / "results"
COMMAND = "python -m benchmarks.lab.readme"
SPEED = "speed"  # name of README's section
STAGES = {
    "pair score": "score of a pair",
    "extract, all scales": "features of an image, all scales",
    "rerank": "rerank of {count}",
    "whole query": "whole query, best {count} reranked",
}  # descriptions of `bench` stages
README_NAMES = {
    "pair score": "score a pair",
    "extract, all scales": "describe an image",
    "whole query": "query, best {count} reranked",
    "indexing": "index an image, file to gallery",
}
README_STAGES = ("pair score", "extract, all scales", "whole query", "indexing")
MODELS = {
    "demo": ", demonstration model",
    "seeded": ", untrained model: the figures show agreement, not quality",
}
FRONTIER_FIGURE = "Medium mAP against seconds a query, and against bytes an image"


def main() -> None:
    write_atomically(README, updated(README.read_text()))
    write_atomically(DOCUMENT, document(RESULTS))


def updated(readme: str) -> str:
    """Return README with its table updated."""
    return replace_section(readme, SPEED, COMMAND, headline(RESULTS))


def read(file: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(file.read_text())
    return content


def headline(results: Path) -> str:
    """Return README's table: the main stages for PyTorch and every precision, and opening a large gallery."""
    report = Report.from_json(results / "cpu.json")
    records, size = stage_records(report)
    ours = engines(records)
    rows = []
    for stage in README_STAGES:
        row = {r.method: r for r in records if (r.stage, r.size) == (stage, size)}
        name = README_NAMES[stage].format(count=row[ours[0]].count)
        rows.append((name, cell(row.get(REFERENCE)), *(readme_cell(row[method]) for method in ours)))
    scale = read(results / "scale.json")
    largest = scale["galleries"][-1]
    opened = f"gallery of {largest['images']:,} generated descriptors opened ({scale['date']})"
    rows.append((opened, "", *[ms(1000 * largest["open_s"])] * len(ours)))
    table = markdown(Table("", ("", "PyTorch", *ours), tuple(rows)), text_columns=1)
    return "\n".join([circumstances(report, size), "", table, *keeping_lines(records, size)])


def readme_cell(record: Record) -> str:
    """Return milliseconds, and the ratio to PyTorch if it was timed."""
    ratio = f" ({times(record.speedups[REFERENCE].median)}×)" if REFERENCE in record.speedups else ""
    return f"{ms(record.ms.median)}{ratio}"


def circumstances(report: Report, size: str) -> str:
    """Return a sentence on machine, date and model, to precede a table of times."""
    return (
        f"{report.threads} threads of an {processor(report.machine)}, {report.date}, {report.model}, "
        f"images of {size} px: milliseconds, and speed-up over PyTorch in the same run."
    )


def processor(machine: Machine) -> str:
    """Return the processor's name and instruction sets."""
    return f"{machine['cpu']} ({', '.join(machine['cpu_features'])})"


def document(results: Path) -> str:
    """Return the document on speed, agreement with PyTorch and precision; parts without results are left out."""
    parts = [
        "# Results\n\nWritten by `python -m benchmarks.lab.readme` from [benchmarks/results](../benchmarks/results).\n"
    ]
    if (results / "cpu.json").is_file():
        parts.append(speed(Report.from_json(results / "cpu.json")))
    parts += [accuracy(read(file)) for file in sorted(results.glob("eval-*.json"))]
    if (results / "frontier.json").is_file():
        parts.append(frontier(read(results / "frontier.json")))
    parts += [load(read(file), file.stem) for file in sorted(results.glob("load*.json"))]
    return "\n".join(parts)


def stage_records(report: Report) -> tuple[list[Record], str]:
    """Return the records of all stages, and the largest image size."""
    records = [r for r in report.records if r.series == "stages"]
    return records, [r.size for r in records if r.size][-1]


def engines(records: list[Record]) -> list[str]:
    return list(dict.fromkeys(r.method for r in records if r.stage == "indexing"))


def speed(report: Report) -> str:
    """Return the section on the main stages at the largest image size, compared with PyTorch in all its forms."""
    records, size = stage_records(report)
    gemm = ", ".join(f"{rate:.0f} in {precision}" for precision, rate in report.limits.best.gemm_gflops.items())
    lines = [
        "## Speed",
        "",
        circumstances(report, size),
        "",
        markdown(speed_table(records, size), text_columns=1),
        "*PyTorch* keeps candidate features, as the engine does; *published* extracts them again for every pair, as "
        "the published loop does, so part of that ratio is caching alone. ~: made up of image and pair times. "
        f"In brackets: share of what counted operations allow at the matrix product rates measured beside it ({gemm} "
        "GFLOP/s); what needs fewer operations than are counted passes 100%.",
        "",
        *keeping_lines(records, size),
        *search_lines(records),
        f"`{report.command}`; everything that it measured: [tables](../benchmarks/results/cpu.md), "
        "[JSON](../benchmarks/results/cpu.json), and the figure:",
        "",
        "![Where time goes, how near the machine's limit that is, and how it grows](../benchmarks/results/cpu.svg)",
        "",
    ]
    return "\n".join(lines)


def speed_table(records: list[Record], size: str) -> Table:
    """Build a table with a row per stage and a column per method."""
    ours = engines(records)
    rows = []
    for (stage, count), row in grouped([r for r in records if r.size == size and r.stage in STAGES]).items():
        if stage == "rerank" and count != max(r.count or 0 for r in records if r.stage == "rerank"):
            continue
        baselines = [cell(row.get(method)) for method in (REFERENCE, PUBLISHED)]
        rows.append((STAGES[stage].format(count=count), *baselines, *(engine_cell(row[method]) for method in ours)))
    return Table("", ("", REFERENCE, "published", *ours), tuple(rows))


def grouped(records: list[Record]) -> dict[tuple[str, int | None], dict[str, Record]]:
    """Group the records: (stage, count) -> method -> record."""
    found: dict[tuple[str, int | None], dict[str, Record]] = {}
    for stage in STAGES:
        for r in records:
            if r.stage == stage:
                found.setdefault((stage, r.count), {})[r.method] = r
    return found


def cell(record: Record | None) -> str:
    return "" if record is None else ("~" if record.projected else "") + ms(record.ms.median)


def engine_cell(record: Record) -> str:
    """Return milliseconds, ratios to PyTorch and to PyTorch as published, and the share of the limit."""
    ratios = [f"{times(record.speedups[name].median)}×" for name in (REFERENCE, PUBLISHED) if name in record.speedups]
    share = "" if record.share is None else f" [{record.share:.0%}]"
    return f"{ms(record.ms.median)}: {', '.join(ratios)}{share}"


def keeping_lines(records: list[Record], size: str) -> list[str]:
    """Return a sentence on PyTorch in its fastest setting."""
    said = [beside_best(records, size, stage) for stage in ("pair score", "extract, all scales")]
    if not any(said):
        return []
    return [
        "PyTorch spends much of its time on memory that the kernel clears. In a process that keeps what it frees "
        f"(`benchmarks/methods/kept_memory.py`; `eval --against pytorch` does so): {'; '.join(filter(None, said))}.",
        "",
    ]


def beside_best(records: list[Record], size: str, stage: str) -> str:
    """Return the reference's time in a process that keeps memory, and the engines' speed-ups over it."""
    by_method = {r.method: r for r in records if (r.stage, r.size) == (stage, size)}
    if KEEPING not in by_method:
        return ""
    ratios = [
        f"{name} {times(r.speedups[KEEPING].median)}×"
        for name, r in by_method.items()
        if KEEPING in r.speedups and r.backend != by_method[KEEPING].backend
    ]
    took = ms(by_method[KEEPING].ms.median)
    return f"{STAGES[stage]} {took} ms, the engines {', '.join(ratios)} as fast"


def search_lines(records: list[Record]) -> list[str]:
    """Return a sentence on the largest global search."""
    searches = [r for r in records if r.stage == "global search" and r.method != "NumPy"]
    if not searches:
        return []
    r = searches[-1]
    return [f"Exact global search among {r.count:,} descriptors: {ms(r.ms.median)} ms a query.", ""]


def accuracy(evaluation: dict[str, Any]) -> str:
    """Return the mAP of the engine, and of the reference and another bundle if they were evaluated, on one data set."""
    who = {f"engine, {evaluation['precision']}": evaluation}
    if "reference" in evaluation:
        who[REFERENCE] = evaluation["reference"]
    if "against" in evaluation:
        who[f"engine, {evaluation['against']['precision']}"] = evaluation["against"]
    rows = []
    for name, content in who.items():
        for label, table in {"global": content["global"], **content["rerank"]}.items():
            cells = [percent(table[setup]["mAP"]) for setup in "EMH"]
            rows.append((name, label if label == "global" else f"best {label} reranked", *cells))
    heading = f"## mAP on {title(evaluation['dataset'])}"
    model = MODELS.get(evaluation["weights"].partition(":")[0], "")
    lead = f"Percent, {evaluation['n']} images, {evaluation['nq']} queries{model}."
    table = Table("", ("", "ranking", "Easy", "Medium", "Hard"), tuple(rows))
    sentences = [agreement_line(name, a) for name, a in evaluation["agreement"].items()]
    return "\n".join([heading, "", lead, "", markdown(table), *sentences, ""])


def load(report: dict[str, Any], name: str) -> str:
    """Return the section on requests and memory of a server under load."""
    constant, overload = report["constant"], report["overload"]
    memory = report["memory"]
    lost = sum(report[phase]["lost"] for phase in ("constant", "busy", "overload"))
    broken = [claim for claim, held in report["must_hold"].items() if not held]
    lines = [
        f"## A server under load, {memory[-1]['at_s'] / 60:.0f} minutes",
        "",
        report["note"],
        "",
        f"At {constant['name']}, while `index` ran {report['index_runs']} times: {constant['answered']} answered, "
        f"{lost} lost, memory {report['memory_spread']:.1%} apart once settled. "
        f"By {overload['name']}, twice as many as are taken on: {overload['refused']} refusals with Retry-After, "
        f"{overload['answered']} answered in the end. "
        f"What must hold and did not: {'; '.join(broken) or 'nothing'}.",
        "",
        f"`{report['command'].partition(' --note')[0]}`; waits by kind of request: "
        f"[tables](../benchmarks/results/{name}.md), [JSON](../benchmarks/results/{name}.json).",
        "",
    ]
    return "\n".join(lines)


def title(dataset: str) -> str:
    return f"generated {dataset} scenes" if dataset in scenes.SETS else dataset


def percent(fraction: float | None) -> str:
    return "" if fraction is None else f"{100 * fraction:.4f}"


def agreement_line(name: str, agreement: dict[str, Any]) -> str:
    """Return a sentence on the largest differences."""
    outcomes = [ranks for by_setup in agreement["ranks"].values() for ranks in by_setup.values()]
    largest = max(ranks["largest_ap_difference"] for ranks in outcomes)
    tau = min(ranks["tau"] for ranks in outcomes)
    other = "PyTorch" if name == "reference" else "the other bundle"
    return (
        f"Against {other}: pair scores within {agreement['largest_pair_difference']:.1e}, the AP of every query within "
        f"{100 * largest:.4f} points, Kendall's tau of rankings at least {tau:.4f}."
    )


def frontier(report: dict[str, Any]) -> str:
    """Return the section on accuracy and cost of the presets on each data set."""
    lines = [
        "## Accuracy against seconds and bytes",
        "",
        "The demonstration model: mAP in percent; Medium points lost against `exact`, with the standard error over "
        "queries; seconds per query and per indexed image, summed from stages timed one after the other on photos of "
        f"1024x768 px; `index` does several at once. {processor(report['machine'])}, {report['date']}. "
        f"{report['note']}",
        "",
    ]
    for dataset, found in report["datasets"].items():
        lines += [f"**{title(dataset)}**", "", presets_table(found)]
    lines += [
        f"![{FRONTIER_FIGURE}](../benchmarks/results/frontier.svg)",
        "",
        f"`{report['command']}`; the points of the figure and the stages' times: "
        "[tables](../benchmarks/results/frontier.md), [JSON](../benchmarks/results/frontier.json).",
        "",
    ]
    return "\n".join(lines)


def presets_table(found: dict[str, Any]) -> str:
    return markdown(points_table(from_json(found["Presets"])))


if __name__ == "__main__":
    main()
