"""The reference of a bundle describes images as the bundle does."""

import pytest

from cvnet_engine.benchmarks.methods.comparison import compare
from cvnet_engine.benchmarks.methods.method import open_bundle, open_reference
from cvnet_engine.engine.bundle import Bundle
from tests.pictures import picture


@pytest.mark.slow
def test_the_reference_has_the_bundles_descriptor(bundle, superglobal_bundle):
    images = [picture(112, 144, seed) for seed in range(2)]
    with open_reference(Bundle(superglobal_bundle), 2) as reference, open_reference(Bundle(bundle), 2) as published:
        assert reference.identity != published.identity
        with open_bundle(superglobal_bundle, 2) as ours:
            assert compare([reference, ours], images).refused == {}
            refused = compare([published, ours], images).refused
    assert "a descriptor by" in refused[ours.name]
