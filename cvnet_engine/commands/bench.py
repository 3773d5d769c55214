"""`bench`: time per stage and throughput of bundles, compared with the PyTorch reference."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from cvnet_engine import console
from cvnet_engine.benchmarks.runs import Settings
from cvnet_engine.commands.build import parse_size
from cvnet_engine.engine.backends import usable_threads
from cvnet_engine.engine.errors import BackendError, CvnetError, DatasetError, install_hint
from cvnet_engine.engine.files import write_atomically
from cvnet_engine.options import BenchOptions

if TYPE_CHECKING:  # these import PyTorch
    from cvnet_engine.benchmarks.latency.report import Report
    from cvnet_engine.benchmarks.throughput.report import ThroughputReport


def run(options: BenchOptions) -> None:
    if options.throughput:
        run_throughput(options)
    else:
        run_stages(options)


def settings_of(options: BenchOptions) -> Settings:
    return Settings(
        bundles=distinct(options.bundles),
        sizes=tuple(parse_size(size) for size in options.sizes.split(",")),
        galleries=parse_counts("--galleries", options.galleries),
        shortlists=parse_counts("--shortlists", options.shortlists),
        threads=usable_threads(options.threads),
        compiled=options.compiled,
        budget_s=options.budget,
    )


def run_throughput(options: BenchOptions) -> None:
    """Measure throughput at the first of `sizes` and the smallest of `shortlists`."""
    if options.plot or options.compare or options.compiled:
        raise CvnetError("--throughput has no figure or comparison: leave out --plot, --compare and --compiled")
    try:
        from cvnet_engine.benchmarks.throughput import bench
        from cvnet_engine.benchmarks.throughput.report import document
    except ImportError as error:
        raise BackendError(f"bench needs PyTorch ({error}): {install_hint('export')}") from error
    settings = settings_of(options)
    with console.err.status("opening") as status:
        report = bench.run(settings, command(), status.update)
    if options.json:
        console.write_json(options.json, report.to_json())
    if options.markdown:
        console.write_file(options.markdown, document(report))
    show_throughput(report)


def show_throughput(report: ThroughputReport) -> None:
    from cvnet_engine.benchmarks.throughput.report import best, heading, table

    for line in heading(report):
        console.say(line)
    rates = table(report)
    console.say()
    console.table(rates.title, rates.columns, rates.rows)
    for line in best(report):
        console.say(line)
    console.say(f"\n{rates.note}")
    if not report.trained:
        console.warn_once(console.UNTRAINED)


def run_stages(options: BenchOptions) -> None:
    try:
        from cvnet_engine.benchmarks.latency import bench, plots
        from cvnet_engine.benchmarks.latency.document import document
        from cvnet_engine.benchmarks.latency.report import Report
    except ImportError as error:
        raise BackendError(f"bench needs PyTorch ({error}): {install_hint('export')}") from error
    settings = settings_of(options)
    old = Report.from_json(options.compare) if options.compare else None
    if options.plot:
        plots.require_drawable(options.plot)
    with console.err.status("opening") as status:
        report = bench.run(settings, command(), status.update)
    if options.json:
        console.write_json(options.json, report.to_json())
    if options.markdown:
        console.write_file(options.markdown, document(report))
    if options.plot:
        write_atomically(options.plot, plots.draw(report, options.plot))
    show(report)
    if old:
        show_changes(old, report)


def command() -> str:
    """Return this command line, quoted for a shell."""
    return shlex.join(["cvnet-engine", *sys.argv[1:]])


def distinct(bundles: list[Path]) -> tuple[Path, ...]:
    """Return the bundles, which reports identify by folder name.

    Raises:
        BackendError: two folders have the same name.
    """
    names = [path.resolve().name for path in bundles]
    if len(set(names)) < len(names):
        raise BackendError(f"bundles named {', '.join(names)}; expected folders of different names: rename one")
    return tuple(bundles)


def parse_counts(option: str, text: str) -> tuple[int, ...]:
    """Parse whole numbers such as `10,100`; return them sorted, without duplicates.

    Raises:
        DatasetError: the text contains anything but whole numbers from 1 on.
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) for part in parts):
        raise DatasetError(f"{option} {text!r}: expected whole numbers from 1 on, such as 10,100")
    return tuple(sorted({int(part) for part in parts}))


def show(report: Report) -> None:
    from cvnet_engine.benchmarks.latency.document import STAGE_NOTE, heading, tables

    for line in heading(report):
        console.say(line)
    for table in tables(report):
        console.say()
        console.table(table.title, table.columns, table.rows)
    console.say(f"\n{STAGE_NOTE}")
    for name, reason in report.absent.items():
        console.warn(f"not timed: {name}: {reason}")
    if not report.trained:
        console.warn_once(console.UNTRAINED)


def show_changes(old: Report, report: Report) -> None:
    from cvnet_engine.benchmarks.latency.document import change_table, changes

    table = change_table(changes(old, report))
    console.say()
    console.table(table.title, table.columns, table.rows)
    console.say(table.note)
