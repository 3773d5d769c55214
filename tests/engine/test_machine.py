"""Facts about the machine: processors within a container's limit, memory, libraries."""

import numpy as np
import pytest

from cvnet_engine.engine import machine


@pytest.mark.parametrize(
    ("content", "cpus"), [("max 100000\n", np.inf), ("150000 100000\n", 1.5), ("?", np.inf), (None, np.inf)]
)
def test_a_containers_quota_of_cpus_is_read(tmp_path, content, cpus):
    if content is not None:
        (tmp_path / "cpu.max").write_text(content)
    assert machine.cpu_quota(tmp_path) == cpus


def test_threads_stay_within_a_containers_quota(tmp_path, monkeypatch):
    (tmp_path / "cpu.max").write_text("50000 100000\n")
    monkeypatch.setattr(machine, "CGROUP", tmp_path)
    assert machine.usable_cpus() == 1


def test_this_machine_is_described():
    facts = machine.describe()
    assert facts["cpus"] >= 1
    assert facts["memory_bytes"] > 2**28
    assert set(facts["libraries"]) == set(machine.libraries())
    assert {"numpy", "torch", "onnxruntime"} <= set(facts["libraries"])
    assert machine.libraries()["onnxruntime"] == "cpu"


@pytest.mark.skipif("amx_bf16" in machine.cpu_features(), reason="this processor has AMX")
def test_amx_refused_by_the_system_is_noticed(monkeypatch):
    assert not machine.amx_refused()
    monkeypatch.setattr(machine, "cpu_features", lambda: ["amx_bf16"])
    assert machine.amx_refused()
