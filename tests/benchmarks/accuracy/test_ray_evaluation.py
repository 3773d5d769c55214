"""`eval` by a real Ray cluster leaves what `eval` by one process leaves, row for row, whoever is killed meanwhile.

The cluster has two nodes with one processor each, so that the two workers are on different ones.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cvnet_engine.cli import app
from tests.engine.clusters import ENVIRONMENT, Nodes, two_nodes
from tests.engine.fake_ray import FakeRay
from tests.hostile.kills import NAME, evaluation_rows, gallery_rows, write_dataset
from tests.hostile.tiny import write_bundle
from tests.pictures import photo

DATABASE, QUERIES = 6, 8
# The program, which counts what it keeps in the journal and, at the Nth of these, kills a worker at work or itself.
COUNTED = """
import os, signal, sys
from cvnet_engine.benchmarks.accuracy.journal import Journal
from tests.engine.clusters import worker_processes

victim, folder, limit = sys.argv.pop(1), sys.argv.pop(1), int(sys.argv.pop(1))
put, kept = Journal.put, []

def put_and_kill(self, *arguments):
    put(self, *arguments)
    kept.append(1)
    if len(kept) == limit:
        os.kill(os.getpid() if victim == "driver" else worker_processes("QueryWorker", folder)[0], signal.SIGKILL)

Journal.put = put_and_kill
from cvnet_engine.cli import app
app(standalone_mode=False)
print("kept", len(kept))
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `bundle`, a data set, and `local`: what one process comes to."""
    folder = tmp_path_factory.mktemp("place")
    write_bundle(folder / "bundle")
    (folder / "photos").mkdir()
    for number in range(DATABASE + QUERIES):
        photo(folder / "photos" / f"{number:03}.jpg", 48, 64 + 32 * (number % 2), seed=number)
    write_dataset(folder / NAME, folder / "photos", DATABASE, QUERIES)
    evaluated(folder, "local")
    return folder


@pytest.fixture(scope="module")
def rows(place: Path) -> dict:
    found = evaluation_rows(place / "local")
    assert found["results"]["rerank"]["3"]["M"]["mAP"]
    return found


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    pytest.importorskip("ray", reason="Ray is not installed")
    with two_nodes() as started:
        yield started


def words(place: Path, gallery: str) -> list[str]:
    found = ["eval", "--dataset", NAME, "--data-dir", place, "--bundle", place / "bundle", "--rerank", "2,3"]
    found += ["--threads", "1", "--gallery", place / gallery, "--json", place / f"{gallery}.json"]
    return list(map(str, found))


def evaluated(place: Path, gallery: str, *more: str) -> None:
    """`eval` in this process."""
    done = CliRunner().invoke(app, [*words(place, gallery), *more])
    assert done.exit_code == 0, done.output


@pytest.mark.parametrize("deadly", [(), (2, 8)])
def test_what_workers_do_is_what_this_process_does(place, rows, monkeypatch, deadly):
    """Without a cluster; one worker dies at a part, one at a query."""
    gallery, ray = f"fake-{len(deadly)}", FakeRay(*deadly)
    monkeypatch.setitem(sys.modules, "ray", ray)
    evaluated(place, gallery, "--runner", "ray")
    assert ray.called.count("complete") + ray.called.count("make") == 1 + QUERIES + len(deadly)
    assert evaluation_rows(place / gallery) == rows
    again = FakeRay()
    monkeypatch.setitem(sys.modules, "ray", again)
    evaluated(place, gallery, "--runner", "ray")
    assert not again.spawned  # all is in the gallery and in the journal
    assert evaluation_rows(place / gallery) == rows


def run(
    place: Path, gallery: str, nodes: Nodes, victim: str = "nobody", limit: int = 0
) -> subprocess.CompletedProcess[str]:
    """`eval` by the nodes."""
    return subprocess.run(
        [sys.executable, "-c", COUNTED, victim, nodes.folder, str(limit), *words(place, gallery), *by(nodes)],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )


def by(nodes: Nodes) -> list[str]:
    return ["--runner", f"ray:{nodes.address}", "--workers", "2"]


def counted(*arguments: object, **killed: object) -> int:
    """How many queries a run kept in the journal."""
    done = run(*arguments, **killed)
    assert done.returncode == 0, done.stderr
    return int(done.stdout.split()[-1])


@pytest.mark.slow
def test_another_does_the_query_of_a_worker_that_was_killed(place, rows, nodes):
    assert counted(place, "ray", nodes, victim="worker", limit=2) == QUERIES
    assert evaluation_rows(place / "ray") == rows


@pytest.mark.slow
def test_a_driver_that_is_killed_and_started_again_goes_on_from_the_journal(place, rows, nodes):
    assert run(place, "again", nodes, victim="driver", limit=3).returncode == -signal.SIGKILL
    kept = evaluation_rows(place / "again")
    assert kept.items() <= rows.items()
    assert len(kept) == len(gallery_rows(place / "again")) + 3
    assert counted(place, "again", nodes) == QUERIES - 3
    assert evaluation_rows(place / "again") == rows


@pytest.mark.slow
def test_the_database_is_the_one_that_index_made(place, rows, nodes):
    gallery, images = place / "indexed", sorted((place / NAME / "jpg").iterdir())[:DATABASE]
    command = [sys.executable, "-m", "cvnet_engine", "index", *images, "--bundle", place / "bundle"]
    command += ["--gallery", gallery, "--max-side", "0", "--threads", "1", *by(nodes)]
    subprocess.run(command, env=ENVIRONMENT, check=True)
    assert gallery_rows(gallery) == gallery_rows(place / "local")
    assert counted(place, "indexed", nodes) == QUERIES
    assert evaluation_rows(gallery) == rows
