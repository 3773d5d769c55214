"""A report goes to JSON and comes back; the one that README is made from still reads."""

import json

import pytest

from benchmarks.lab.readme import RESULTS
from cvnet_engine.benchmarks.latency.document import document
from cvnet_engine.benchmarks.latency.report import Report
from cvnet_engine.engine.errors import DatasetError

COMMITTED = RESULTS / "cpu.json"


def without(name):
    content = json.loads(COMMITTED.read_text())
    del content[name]
    return content


def test_the_committed_run_reads_back_as_it_was_written():
    report = Report.from_json(COMMITTED)
    assert document(report) == (RESULTS / "cpu.md").read_text()
    want, got = json.loads(COMMITTED.read_text()), json.loads(json.dumps(report.to_json()))
    records = zip(got.pop("records"), want.pop("records"), strict=True)
    assert list(got) == list(want)
    assert got == want
    for ours, theirs in records:
        assert list(ours) == list(theirs)
        assert ours.pop("share") == pytest.approx(theirs.pop("share"))
        assert ours == theirs


@pytest.mark.parametrize(
    "content",
    [
        None,
        "",
        "{",
        "\udc80",
        *map(
            json.dumps, [[], {}, {"records": []}, *map(without, ("records", "limits", "machine", "threads", "model"))]
        ),
        json.dumps(without("date") | {"other": 1}),
        json.dumps(without("records") | {"records": [{"stage": "decode"}]}),
        json.dumps(without("machine") | {"machine": {}}),
        json.dumps(without("limits") | {"limits": {"moments": []}}),
    ],
)
def test_what_is_no_report(tmp_path, content):
    file = tmp_path / "old.json"
    if content is not None:
        file.write_text(content, errors="surrogatepass")
    with pytest.raises(DatasetError, match=r"^\S*old\.json: not readable .*; expected what 'bench --json' wrote$"):
        Report.from_json(file)
