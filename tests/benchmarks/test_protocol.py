"""The mAP protocol against the published evaluation on the real ground truth of ROxford5k and RParis6k."""

import json

import numpy as np
import pytest

from tests.golden_inputs import GOLDEN

PUBLISHED = json.loads((GOLDEN / "map_protocol.json").read_text())


def rows(*values):
    return np.array(values, np.int64)


@pytest.mark.parametrize("case", sorted(PUBLISHED))
def test_published_protocol(case):
    """Random rankings with a bonus for labelled images, as the golden file was made."""

    name, seed = case.split("/")
    folder = GOLDEN / "gnd"
    if not folder.is_dir():
        pytest.skip("needs ground truth")
