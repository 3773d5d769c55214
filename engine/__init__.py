"""The torch-free runtime: backends, images, galleries, retrieval.

It sends no telemetry. ONNX Runtime and OpenVINO would send it once imported, so this file disables it before any import
of them.
"""

import os
import sys

os.environ["ORT_DISABLE_TELEMETRY"] = "1"
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # absent: OpenVINO then uses its own stub
