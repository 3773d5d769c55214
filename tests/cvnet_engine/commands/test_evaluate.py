"""`eval`: one pass over everything, held against others, taken up where it was killed, and shown on a page."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from cvnet_engine.benchmarks.accuracy.dataset import GroundTruth
from cvnet_engine.benchmarks.accuracy.evaluation import GLOBAL, Evaluation
from cvnet_engine.cli import app
from cvnet_engine.engine.retrieval.ranking import Ranking
from cvnet_engine.pages.evaluation import choose, first_match
from scenes import SceneSet, write
from tests.bundles import copy_bundle

SMALL = SceneSet("small", seed=5, scenes=3, views=3, distractors=1, size=(96, 128))
# The program, killed as soon as it has kept its Nth piece of work.
KILLED = """
import os, signal, sys
from cvnet_engine.benchmarks.accuracy.journal import Journal
kept, put = [], Journal.put
limit = int(sys.argv.pop(1))
def put_and_die(self, *arguments):
    put(self, *arguments)
    kept.append(1)
    if len(kept) == limit:
        os.kill(os.getpid(), signal.SIGKILL)
Journal.put = put_and_die
from cvnet_engine.cli import main
main()
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """DATA_DIR with the generated set `small`: 3 queries, 7 database images."""
    folder = tmp_path_factory.mktemp("data")
    write(SMALL, folder)
    return folder


@pytest.fixture(scope="module")
def bundle(seeded_bundle: Path) -> Path:
    """The published model, which the reference computes as well."""
    return seeded_bundle


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Kept by every test of this module, so that an image is extracted once."""
    return tmp_path_factory.mktemp("gallery") / "g"


@pytest.fixture(scope="module")
def evaluated(bundle, data, gallery):
    """Runs `eval` with more options; standard output and the JSON."""

    def run(*options: object, into: Path = gallery) -> tuple[str, dict]:
        file = into.parent / "e.json"
        words = [
            "eval",
            "--dataset",
            "small",
            "--data-dir",
            data,
            "--bundle",
            bundle,
            "--gallery",
            into,
            "--json",
            file,
        ]
        done = CliRunner().invoke(app, [str(word) for word in (*words, *options)])
        assert done.exit_code == 0, done.output
        return done.stdout, json.loads(file.read_text())

    return run


def without_seconds(content: dict) -> dict:
    return {k: without_seconds(v) if isinstance(v, dict) else v for k, v in content.items() if k != "seconds"}


@pytest.fixture(scope="module")
def whole(evaluated):
    """What an undisturbed run printed, and its JSON."""
    return evaluated("--rerank", "2,4", "--reference")


def test_reference_and_engine_rank_alike(evaluated, whole):
    out, content = whole
    assert "engine: 10 images to describe, " in out
    assert "reference: 10 images to describe, " in out
    agreement = content["agreement"]["reference"]
    assert agreement["largest_pair_difference"] < 1e-4
    for by_setup in agreement["ranks"].values():
        for ranks in by_setup.values():
            assert ranks["largest_ap_difference"] == pytest.approx(0, abs=1e-9)
            assert (ranks["same_first"], ranks["head"]) == (1, 1)
            assert ranks["tau"] > 0.99
    again, same = evaluated("--rerank", "2,4", "--reference")
    assert "engine: everything is in the journal" in again
    assert "reference: everything is in the journal" in again
    assert without_seconds(same) == without_seconds(content)
    assert same["reference"]["seconds"] == content["reference"]["seconds"]


def test_the_json(whole, bundle):
    content = whole[1]
    assert (content["dataset"], content["bundle"], content["n"], content["nq"]) == ("small", str(bundle), 7, 3)
    assert content["backend"]
    assert content["precision"] == "fp32"
    assert set(content["seconds"]) == {"index", "indexed", "queries"}
    reference = content["reference"]
    for results in (content, reference):
        assert list(results["rerank"]) == ["2", "4"]
        for table in (results["global"], *results["rerank"].values()):
            assert list(table) == ["E", "M", "H"]
            assert all(list(means) == ["mAP", "mP@1", "mP@5", "mP@10"] for means in table.values())
            assert all(value is None or 0 <= value <= 1 for means in table.values() for value in means.values())
    for setup in ("E", "M", "H"):
        for ours, theirs in [
            (content["global"], reference["global"]),
            *((content["rerank"][k], reference["rerank"][k]) for k in ("2", "4")),
        ]:
            assert ours[setup] == pytest.approx(theirs[setup], abs=5e-5)
    for ours, theirs in zip(content["queries"], reference["queries"], strict=True):
        assert [row for row, _ in ours["pairs"]] == [row for row, _ in theirs["pairs"]]
        assert [score for _, score in ours["pairs"]] == pytest.approx([score for _, score in theirs["pairs"]], abs=1e-4)


def test_killed_and_taken_up_again(evaluated, whole, bundle, data, tmp_path):
    """With three queries of the engine and two images of the reference done: the same figures as in one go."""
    words = ["eval", "--dataset", "small", "--data-dir", data, "--bundle", bundle, "--rerank", "2,4", "--reference"]
    command = [sys.executable, "-c", KILLED, "5", *map(str, words), "--gallery", str(tmp_path / "g")]
    killed = subprocess.run(command, capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    out, resumed = evaluated("--rerank", "2,4", "--reference", into=tmp_path / "g")
    assert "engine: everything is in the journal" in out
    assert "engine: 0 database images " in out  # all were in the gallery
    assert "reference: 8 images to describe, " in out
    assert without_seconds(resumed) == without_seconds(whole[1])


def test_other_machines_need_a_gallery_that_they_see(bundle, data):
    words = ["eval", "--dataset", "small", "--data-dir", data, "--bundle", bundle]
    done = CliRunner().invoke(app, [*map(str, words), "--runner", "ray:127.0.0.1:1"])
    assert (
        str(done.exception)
        == "--runner ray:127.0.0.1:1 needs --gallery, in a folder that every machine of the cluster can read"
    )


def test_a_bundle_against_another(evaluated, bundle, tmp_path):
    """Here the same graphs under another precision's name: features of their own, and no difference."""
    other = copy_bundle(bundle, tmp_path / "other")
    manifest = json.loads((other / "manifest.json").read_text())
    (other / "manifest.json").write_text(json.dumps(manifest | {"precision": "bf16"}))
    out, content = evaluated("--rerank", "2,4", "--against", other)
    assert "The engine against the other bundle" in out
    assert content["against"]["precision"] == "bf16"
    assert content["against"]["bundle"] == str(other)
    assert content["agreement"]["against"]["largest_pair_difference"] == 0
    assert content["against"]["global"] == content["global"]


def test_fewer_scales(evaluated, whole, tmp_path):
    """Maps and pair scores stay as they are, descriptors change: of the reference, too."""
    out, fewer = evaluated("--rerank", "0", "--preset", "balanced", "--reference", into=tmp_path / "one")
    assert "scales 1 only: not comparable with published figures" in out
    assert (whole[1]["scales"], fewer["scales"]) == ([0.7071, 1.0, 1.4142], [1.0])
    assert fewer["agreement"]["reference"]["ranks"]["0"]["M"]["tau"] > 0.99
    _, again = evaluated("--rerank", "0", "--reference", into=tmp_path / "one")  # those of the gallery
    assert without_seconds(again) == without_seconds(fewer) | {"rerank_full": None}


def test_a_page(evaluated, tmp_path):
    page = tmp_path / "p.html"
    evaluated("--rerank", "2,4", "--reference", "--html", page)
    html = page.read_text()
    assert html.count('<section class="query">') == 3
    for text in ("Accuracy, percent", "What reranking moved", "The engine against the reference", "Among the hardest"):
        assert text in html
    assert "untrained" in html
    assert len(re.findall(r"first match at \d+; before reranking [\d.]+, at \d+", html)) == 3


def test_a_page_without_reranking(evaluated, tmp_path):
    page = tmp_path / "p.html"
    evaluated("--rerank", "0", "--html", page)
    assert "What reranking moved" not in page.read_text()


def test_the_first_match_is_counted_from_one():
    ranking = Ranking.by_similarity(np.array([0.1, 0.4, 0.3, 0.2], np.float32))
    truth = GroundTruth((0, 0, 1, 1), easy=np.array([0]), hard=np.array([3]), junk=np.array([]))
    assert first_match(ranking, truth) == 3


def test_the_hardest_come_first():
    class One:
        def __init__(self, before, after):
            result = {GLOBAL: before, 5: after}
            self.results = {
                (k, "M"): type("R", (), {"ap": ap})() if ap is not None else None for k, ap in result.items()
            }

    aps = [(0.9, 0.9), (None, None), (0.2, 0.1), (0.1, 0.8), *[(0.3, 0.3)] * 9, (1.0, 0.95)]
    chosen = choose(Evaluation((5,), tuple(One(*pair) for pair in aps)), 5)
    assert next(iter(chosen)) == 2
    assert list(chosen.values()).count("among the hardest") == 10
    assert 1 not in chosen
    assert chosen[3] == "among those that reranking helped most"
    assert chosen[13] == "among those that reranking hurt most"
