"""Tables of README, `docs/scale.md` and `docs/results.md`: `python -m benchmarks.lab.readme` writes them.

All figures are read from `benchmarks/results`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import scenes
from benchmarks.lab import scale
from benchmarks.lab.frontier.report import from_json, table
from cvnet_engine.benchmarks.latency.report import Record, Report
from cvnet_engine.benchmarks.methods.method import KEEPING, REFERENCE
from cvnet_engine.benchmarks.tables import Table, markdown, ms, replace_section, times
from cvnet_engine.engine.files import write_atomically
from cvnet_engine.engine.machine import Machine

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"
README, SCALE, DOCUMENT = ROOT / "README.md", ROOT / "docs" / "scale.md", ROOT / "docs" / "results.md"
COMMAND = "python -m benchmarks.lab.readme"
STAGES = {
    "pair score": "score a pair",
    "extract, all scales": "describe an image",
    "whole query": "query, best {count} reranked",
    "indexing": "index an image, file to gallery",
}  # descriptions of `bench` stages
MODELS = {"demo": "demonstration model", "seeded": "untrained model"}


def main() -> None:
    for document, text in written(RESULTS).items():
        write_atomically(document, text)


def written(results: Path) -> dict[Path, str]:
    """Return the documents with their present figures."""
    return {
        README: replace_section(README.read_text(), "speed", COMMAND, speed(results)),
        SCALE: replace_section(SCALE.read_text(), "scale", COMMAND, galleries(read(results / "scale.json"))),
        DOCUMENT: document(results),
    }


def read(file: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(file.read_text())
    return content


def circumstances(machine: Machine, date: str) -> str:
    """Return the processor, its instruction sets, and the date."""
    return f"{machine['cpu']} ({', '.join(machine['cpu_features'])}), {date}"


def speed(results: Path) -> str:
    """Return README's table: the main stages for PyTorch and every precision, and opening a large gallery."""
    report, opened = Report.from_json(results / "cpu.json"), read(results / "scale.json")
    stages = [r for r in report.records if r.series == "stages"]
    size = [r.size for r in stages if r.size][-1]  # the largest
    engines = list(dict.fromkeys(r.method for r in stages if r.stage == "indexing"))
    rows = []
    for stage, name in STAGES.items():
        row = {r.method: r for r in stages if (r.stage, r.size) == (stage, size)}
        cells = (cell(row.get(method)) for method in (REFERENCE, KEEPING, *engines))
        rows.append((name.format(count=row[engines[0]].count), *cells))
    largest = opened["galleries"][-1]
    when = "" if opened["date"] == report.date else f" ({opened['date']})"
    name = f"open a gallery of {largest['images']:,} generated descriptors{when}"
    rows.append((name, "", "", *[ms(1000 * largest["open_s"])] * len(engines)))
    return "\n".join(
        [
            f"Milliseconds, in brackets the speed-up over *PyTorch*. {report.threads} threads of an "
            f"{circumstances(report.machine, report.date)}; {report.model}, images of {size} px.",
            "",
            markdown(Table("", ("", REFERENCE, KEEPING, *engines), tuple(rows)), text_columns=1),
        ]
    )


def cell(record: Record | None) -> str:
    """Return milliseconds, ~ if they were not measured, and the ratio to PyTorch for engines."""
    if record is None:
        return ""
    shown = ("~" if record.projected else "") + ms(record.ms.median)
    is_engine = not record.method.startswith(REFERENCE) and REFERENCE in record.speedups
    return f"{shown} ({times(record.speedups[REFERENCE].median)}×)" if is_engine else shown


def galleries(report: dict[str, Any]) -> str:
    """Return the table of `docs/scale.md`."""
    tabled = markdown(scale.table(report["galleries"]), text_columns=0)
    return f"{circumstances(report['machine'], report['date'])}:\n\n{tabled}"


def document(results: Path) -> str:
    """Return the document on speed, agreement with PyTorch, presets and load."""
    parts = [
        f"# Results\n\nWritten by `{COMMAND}` from [benchmarks/results](../benchmarks/results).\n",
        stages(Report.from_json(results / "cpu.json")),
        agreement([read(file) for file in sorted(results.glob("eval-*.json"))]),
        presets(read(results / "frontier.json")),
        load(results / "load-30-minutes.json"),
    ]
    return "\n".join(parts)


def stages(report: Report) -> str:
    """Return the section on the speed of all stages."""
    return (
        f"## Speed\n\n{circumstances(report.machine, report.date)}, {report.threads} threads, {report.model}. All "
        "stages and methods, their confidence intervals, and the share of the machine's limit that they reach: "
        "[tables](../benchmarks/results/cpu.md), [JSON](../benchmarks/results/cpu.json).\n\n"
        f"    {report.command}\n\n"
        "![Time per stage, share of the machine's limit, and growth](../benchmarks/results/cpu.svg)\n"
    )


def agreement(evaluations: list[dict[str, Any]]) -> str:
    """Return the section on mAP on each data set, and on the differences from PyTorch."""
    rows, notes = [], []
    for evaluation in evaluations:
        name, difference = title(evaluation["dataset"]), evaluation["agreement"]["reference"]
        weights = evaluation["weights"]
        model = MODELS.get(weights.partition(":")[0], weights)
        for ranking, found in {"0": evaluation["global"], **evaluation["rerank"]}.items():
            label = "global" if ranking == "0" else f"best {ranking} reranked"
            largest = max(setup["largest_ap_difference"] for setup in difference["ranks"][ranking].values())
            rows.append((name, label, *(percent(found[setup]["mAP"]) for setup in "EMH"), f"{100 * largest:.4f}"))
        notes.append(
            f"- {name}: {evaluation['n']} images, {evaluation['nq']} queries, {model}; pair scores differ by at most "
            f"{difference['largest_pair_difference']:.1e}."
        )
    columns = ("data set", "ranking", "Easy", "Medium", "Hard", "largest AP difference")
    return "\n".join(
        [
            "## Agreement with PyTorch\n",
            "mAP of the fp32 engine in percent, and the largest difference from PyTorch in the AP of any query.\n",
            markdown(Table("", columns, tuple(rows))),
            *notes,
            "",
        ]
    )


def presets(report: dict[str, Any]) -> str:
    """Return the section on accuracy and cost of the presets on each data set."""
    parts = [
        "## Accuracy against time and space\n",
        "The demonstration model: Medium mAP in percent; points lost against `exact`, with the standard error over "
        "queries. Seconds are sums of stages timed one after the other on photos of 1024x768 px; `index` does several "
        f"at once. {circumstances(report['machine'], report['date'])}. {report['note']}\n",
        *(markdown(table(title(name), from_json(found["Presets"])), 1) for name, found in report["datasets"].items()),
        "![Medium mAP against seconds per query, and against bytes per image](../benchmarks/results/frontier.svg)\n",
        f"    {report['command']}\n",
        "All Pareto-optimal points: [tables](../benchmarks/results/frontier.md), "
        "[JSON](../benchmarks/results/frontier.json).\n",
    ]
    return "\n".join(parts)


def load(file: Path) -> str:
    """Return the section on requests and memory of a server under load."""
    report = read(file)
    constant, overload = report["constant"], report["overload"]
    failed = [claim for claim, held in report["must_hold"].items() if not held]
    lost = constant["lost"] + overload["lost"]
    return (
        f"## A server under load for {report['memory'][-1]['at_s'] / 60:.0f} minutes\n\n"
        f"While `index` ran {report['index_runs']} times, {constant['answered']} mixed requests were answered, and "
        f"memory varied by {report['memory_spread']:.1%}. Then 64 clients, twice as many as the server accepts, sent "
        f"{overload['answered']} searches: {overload['refused']} refusals with Retry-After, all answered in the end. "
        f"Lost: {lost}. Requirements not met: {'; '.join(failed) or 'none'}. Waiting times: "
        f"[tables](../benchmarks/results/{file.stem}.md), [JSON](../benchmarks/results/{file.name}).\n\n"
        f"    {report['command'].partition(' --note')[0]}\n"
    )


def title(dataset: str) -> str:
    return f"generated {dataset} scenes" if dataset in scenes.SETS else dataset


def percent(fraction: float | None) -> str:
    return "" if fraction is None else f"{100 * fraction:.2f}"


if __name__ == "__main__":
    main()
