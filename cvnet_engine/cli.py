"""The `cvnet-engine` program: its commands, and how errors end it."""

from __future__ import annotations

import inspect
import io
import os
import sys
import warnings
from importlib import import_module
from importlib.metadata import version
from typing import Annotated, Any, TextIO

import typer
from typer.core import TyperGroup

from cvnet_engine import interrupts, options
from cvnet_engine.engine.errors import OUT_OF_MEMORY, CvnetError, CvnetWarning


class Program(TyperGroup):
    """The commands, each unwound by Ctrl-C."""

    def invoke(self, context: Any) -> Any:
        with interrupts.unwinding():
            return super().invoke(context)


def new_app(help: str | None, cls: type[TyperGroup] = TyperGroup) -> typer.Typer:
    return typer.Typer(
        help=help,
        cls=cls,
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"max_content_width": 100},
    )


def add_command(app: typer.Typer, name: str, declared: type[options.Options], run: str) -> None:
    """Add a command whose parameters are the fields of a dataclass, and whose help is its docstring.

    Args:
        run: "module:function" in `cvnet_engine.commands`. It is imported when the command runs, which keeps `--help`
            fast, and called with an instance of the dataclass.
    """

    def command(**values: Any) -> None:
        given = declared(**values)
        given.files.require_apart()
        module, function = run.split(":")
        getattr(import_module(f"cvnet_engine.commands.{module}"), function)(given)

    command.__signature__ = inspect.signature(declared, eval_str=True)  # type: ignore[attr-defined]
    app.command(name, help=declared.__doc__)(command)


app = new_app(None, Program)
add_command(app, "demo", options.DemoOptions, "demo:run")
add_command(app, "build", options.BuildOptions, "build:run")
add_command(app, "index", options.IndexOptions, "index:run")
add_command(app, "search", options.SearchOptions, "search:run")
add_command(app, "eval", options.EvalOptions, "evaluate:run")
add_command(app, "bench", options.BenchOptions, "bench:run")
add_command(app, "serve", options.ServeOptions, "serve:run")
add_command(app, "doctor", options.DoctorOptions, "doctor:run")

gallery = new_app("Look after a gallery: count, list, verify, remove, export, find duplicates, merge, convert.")
app.add_typer(gallery, name="gallery")
add_command(gallery, "info", options.InfoOptions, "gallery.inspection:show_info")
add_command(gallery, "list", options.ListOptions, "gallery.inspection:list_images")
add_command(gallery, "verify", options.VerifyOptions, "gallery.inspection:verify_images")
add_command(gallery, "remove", options.RemoveOptions, "gallery.removal:remove")
add_command(gallery, "prune", options.PruneOptions, "gallery.removal:prune")
add_command(gallery, "compact", options.CompactOptions, "gallery.removal:compact")
add_command(gallery, "export", options.ExportOptions, "gallery.copying:export_gallery")
add_command(gallery, "duplicates", options.DuplicatesOptions, "gallery.duplicates:run")
add_command(gallery, "merge", options.MergeOptions, "gallery.copying:merge_galleries")
add_command(gallery, "convert", options.ConvertOptions, "gallery.copying:convert_gallery")
add_command(gallery, "ann", options.AnnOptions, "gallery.ann:run")


def show_version(given: bool) -> None:
    if given:
        typer.echo(f"cvnet-engine {version('cvnet-engine')}")
        raise typer.Exit


@app.callback()
def program(
    _version: Annotated[
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Image retrieval with CVNet: build an engine, index photos, search them, evaluate."""


def main() -> None:
    """Run the program. An expected error prints one line and ends it with exit code 1."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # the terminal may not use UTF-8
    warnings.showwarning = show_note
    try:
        app()
    except CvnetError as error:
        fail(str(error))
    except MemoryError:
        fail(OUT_OF_MEMORY)
    except BrokenPipeError:  # the reader of standard output has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        fail(f"{error}; check the file and the disk it is on")


def fail(message: str) -> None:
    tell("error", message)
    sys.exit(1)


def show_note(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Show a `CvnetWarning` on one line, without its place in the source; others as Python does."""
    if issubclass(category, CvnetWarning):
        tell("note", str(message))
    else:
        (file or sys.stderr).write(warnings.formatwarning(message, category, filename, lineno, line))


def tell(kind: str, message: str) -> None:
    from cvnet_engine.console import printable

    sys.stderr.write(f"{kind}: {printable(' '.join(message.split()))}\n")
