"""Peak memory is measured on features that an engine accepts."""

from types import SimpleNamespace

import numpy as np
import pytest

from cvnet_engine.benchmarks.latency.memory import random_features


@pytest.mark.parametrize(("of_reference", "channels"), [(True, [1024]), (False, [256] * 3)])
def test_random_maps_are_of_unit_vectors(of_reference, channels):
    found = random_features(SimpleNamespace(is_reference=of_reference), (96, 128), seed=0)
    assert [len(m) for m in found.maps] == channels
    assert found.map_size == (6, 8)
    for m in found.maps:
        np.testing.assert_allclose(np.linalg.norm(m, axis=0), 1, rtol=1e-5)
