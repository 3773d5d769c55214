"""The torch-free runtime: backends, images, galleries, retrieval.

It reports to nobody. ONNX Runtime and OpenVINO would, from the moment they are imported; what keeps them from it has to
be there before, whoever imports them, and so is here.
"""

import os
import sys

os.environ["ORT_DISABLE_TELEMETRY"] = "1"
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # absent: OpenVINO then uses its own stub
