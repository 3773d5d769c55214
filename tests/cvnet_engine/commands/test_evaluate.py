"""`eval`: its figures, comparisons with PyTorch and other bundles, resuming after a kill, and its page."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
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
from tests.hostile.tiny import open_tiny_reference

SMALL = SceneSet("small", seed=5, scenes=3, views=3, distractors=1, size=(96, 128))
# The program with a tiny reference, killed as soon as its Nth result is in the journal.
KILLED = """
import os, signal, sys
from cvnet_engine.benchmarks.accuracy.journal import Journal
from cvnet_engine.commands import subject
from tests.hostile.tiny import open_tiny_reference
subject.open_reference = open_tiny_reference
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
def bundle(tiny_bundle: Path) -> Iterator[Path]:
    """A bundle of tiny graphs, whose reference is as tiny."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cvnet_engine.commands.subject.open_reference", open_tiny_reference)
        yield tiny_bundle


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The gallery of all tests, so that each image is extracted once."""
    return tmp_path_factory.mktemp("gallery") / "g"


def evaluate(bundle: Path, data: Path, gallery: Path, *options: object) -> tuple[str, dict]:
    """Run `eval`; standard output and the JSON."""
    file = gallery.parent / "e.json"
    where = ["--data-dir", data, "--bundle", bundle, "--gallery", gallery, "--json", file]
    done = CliRunner().invoke(app, ["eval", "--dataset", "small", *map(str, (*where, *options))])
    assert done.exit_code == 0, done.output
    return done.stdout, json.loads(file.read_text())


@pytest.fixture(scope="module")
def evaluated(bundle, data, gallery):
    """`evaluate` with more options, and another gallery on request."""
    return lambda *options, into=gallery: evaluate(bundle, data, into, *options)


def without_seconds(content: dict) -> dict:
    return {k: without_seconds(v) if isinstance(v, dict) else v for k, v in content.items() if k != "seconds"}


@pytest.fixture(scope="module")
def whole(evaluated):
    """The output of an undisturbed run, and its JSON."""
    return evaluated("--rerank", "2,4", "--against", "pytorch")


def assert_agreement(content):
    """The engine and the reference rank alike."""
    agreement = content["agreement"]["reference"]
    assert agreement["largest_pair_difference"] < 1e-4
    for by_setup in agreement["ranks"].values():
        for ranks in by_setup.values():
            assert ranks["largest_ap_difference"] == pytest.approx(0, abs=1e-9)
            assert (ranks["same_first"], ranks["head"]) == (1, 1)
            assert ranks["tau"] > 0.99


@pytest.mark.slow
def test_the_real_model_agrees_with_pytorch(seeded_bundle, data, tmp_path):
    assert_agreement(evaluate(seeded_bundle, data, tmp_path / "g", "--rerank", "2,4", "--against", "pytorch")[1])


def test_a_second_run_takes_everything_from_the_journal(evaluated, whole):
    out, content = whole
    assert "engine: 10 images to describe, " in out
    assert "reference: 10 images to describe, " in out
    assert_agreement(content)
    again, same = evaluated("--rerank", "2,4", "--against", "pytorch")
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


def test_a_killed_run_is_resumed_with_the_same_figures(evaluated, whole, bundle, data, tmp_path):
    """It is killed after three queries of the engine and two images of the reference."""
    words = [
        "eval",
        "--dataset",
        "small",
        "--data-dir",
        data,
        "--bundle",
        bundle,
        "--rerank",
        "2,4",
        "--against",
        "pytorch",
    ]
    command = [sys.executable, "-c", KILLED, "5", *map(str, words), "--gallery", str(tmp_path / "g")]
    killed = subprocess.run(command, capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    out, resumed = evaluated("--rerank", "2,4", "--against", "pytorch", into=tmp_path / "g")
    assert "engine: everything is in the journal" in out
    assert "engine: 0 database images " in out  # all were in the gallery
    assert "reference: 8 images to describe, " in out
    assert without_seconds(resumed) == without_seconds(whole[1])


def test_a_cluster_needs_a_gallery(bundle, data):
    words = ["eval", "--dataset", "small", "--data-dir", data, "--bundle", bundle]
    done = CliRunner().invoke(app, [*map(str, words), "--runner", "ray:127.0.0.1:1"])
    assert (
        str(done.exception)
        == "--runner ray:127.0.0.1:1 needs --gallery, in a folder that every machine of the cluster can read"
    )


def test_a_bundle_against_another(evaluated, bundle, tmp_path):
    """The other bundle has the same graphs under another precision's name, so features are stored twice, and equal."""
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
    """The descriptors change, also those of the reference."""
    out, fewer = evaluated("--rerank", "0", "--preset", "balanced", "--against", "pytorch", into=tmp_path / "one")
    assert "scales 1 only: not comparable with published figures" in out
    assert (whole[1]["scales"], fewer["scales"]) == ([0.7071, 1.0, 1.4142], [1.0])
    assert fewer["agreement"]["reference"]["ranks"]["0"]["M"]["tau"] > 0.99
    _, again = evaluated("--rerank", "0", "--against", "pytorch", into=tmp_path / "one")  # the scales of the gallery
    assert without_seconds(again) == without_seconds(fewer) | {"rerank_full": None}


def test_whole_query_images_need_no_boxes(evaluated, whole, bundle, data, tmp_path):
    """Without boxes in the ground truth, `--uncropped` gives the same, and `eval` alone is an error."""
    out, content = evaluated("--rerank", "2", "--uncropped")
    assert "queries are whole images: not comparable with published figures" in out
    assert (whole[1]["cropped"], content["cropped"]) == (True, False)
    assert content["queries"][0]["pairs"] != whole[1]["queries"][0]["pairs"]
    (tmp_path / "small").mkdir()
    (tmp_path / "small" / "jpg").symlink_to(data / "small" / "jpg")
    truth = json.loads((data / "small" / "gnd_small.json").read_text())
    for record in truth["gnd"]:
        del record["bbx"]
    (tmp_path / "small" / "gnd_small.json").write_text(json.dumps(truth))
    _, without = evaluated("--rerank", "2", "--uncropped", "--data-dir", tmp_path)
    assert without_seconds(without) == without_seconds(content)
    done = CliRunner().invoke(app, ["eval", "--dataset", "small", "--data-dir", str(tmp_path), "--bundle", str(bundle)])
    assert "has no bbx; expected x1, y1, x2, y2 (--uncropped" in str(done.exception)


def test_a_page(evaluated, tmp_path):
    page = tmp_path / "p.html"
    evaluated("--rerank", "2,4", "--against", "pytorch", "--html", page)
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


def test_the_first_match_has_rank_one_or_more():
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
