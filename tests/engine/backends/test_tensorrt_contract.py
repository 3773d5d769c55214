"""Every name of TensorRT and CUDA that our source touches exists in the real bindings: 10.16, 11.4 and for RTX.

TensorRT's bindings import without its libraries once stubs stand in for the three; TensorRT for RTX is installed whole.
"""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.engine.backends import tensorrt_contract
from tests.engine.backends.fetch_tensorrt_wheels import FOLDER, VERSIONS
from tests.engine.backends.tensorrt_contract import UnknownClassError, Use, uses

ROOT = Path(__file__).parents[3]
SHARED = ("engine/backends/cuda.py", "engine/backends/tensorrt.py", "export/tensorrt_plan.py")
RTX = "RTX"
SOURCES = {  # version of the bindings -> the modules that must go with it
    **{version: [(ROOT / file).read_text() for file in SHARED] for version in VERSIONS},
    RTX: [(ROOT / file).read_text() for file in (*SHARED, "engine/backends/tensorrt_rtx.py")],
}
USES = {version: set().union(*map(uses, sources)) for version, sources in SOURCES.items()}
LIBRARIES = ("nvinfer", "nvinfer_plugin", "nvonnxparser")
SYMBOLS = (
    "createInferBuilder_INTERNAL",
    "createInferRuntime_INTERNAL",
    "createInferRefitter_INTERNAL",
    "createNvOnnxParser_INTERNAL",
    "createNvOnnxParserRefitter_INTERNAL",
    "getPluginRegistry",
    "getBuilderPluginRegistry",
    "initLibNvInferPlugins",
    "getNvOnnxParserVersion",
)


@pytest.fixture(scope="module", params=SOURCES)
def bindings(request, tmp_path_factory):
    """Environment variables with which a process can import one version of the bindings."""
    if request.param == RTX:
        module = pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not installed")
        return os.environ | {"CVNET_BINDINGS": RTX, "CVNET_VERSION": module.__version__}
    wheels = list(FOLDER.glob(f"tensorrt_cu13_bindings-{request.param}-cp{sys.version_info[0]}{sys.version_info[1]}-*"))
    if not wheels:
        pytest.skip(f"no wheel of TensorRT {request.param} in {FOLDER}: run fetch_tensorrt_wheels.py")
    if not shutil.which("cc"):
        pytest.skip("no C compiler for the stub libraries")
    folder = tmp_path_factory.mktemp("bindings")
    zipfile.ZipFile(wheels[0]).extractall(folder)
    major = request.param.split(".")[0]
    code = folder / "stub.c"
    code.write_text("".join(f"void *{symbol}(void) {{ return 0; }}\n" for symbol in SYMBOLS))
    for name in LIBRARIES:
        library = f"lib{name}.so.{major}"
        subprocess.run(
            ["cc", "-shared", "-fPIC", f"-Wl,-soname,{library}", str(code), "-o", str(folder / library)], check=True
        )
    return (
        os.environ
        | {"PYTHONPATH": str(folder), "LD_LIBRARY_PATH": str(folder)}
        | {
            "CVNET_BINDINGS": request.param,
            "CVNET_VERSION": request.param,
        }
    )


def missing(asked, bindings):
    """The uses that the bindings lack, asked in a process of their own."""
    module = "tensorrt_rtx" if bindings["CVNET_BINDINGS"] == RTX else "tensorrt_bindings"
    command = [sys.executable, tensorrt_contract.__file__, module]
    done = subprocess.run(
        command, input=json.dumps(sorted(asked)), env=bindings, capture_output=True, text=True, check=True
    )
    answer = json.loads(done.stdout)
    assert answer["version"] == bindings["CVNET_VERSION"]
    return answer["missing"]


def of_tensorrt(asked):
    return [use for use in asked if use.module == "tensorrt"]


def test_every_name_exists(bindings):
    assert missing(of_tensorrt(USES[bindings["CVNET_BINDINGS"]]), bindings) == []


@pytest.mark.parametrize(
    ("right", "wrong", "fault"),
    [
        ("BuilderFlag.TF32", "BuilderFlag.TF23", "BuilderFlag.TF23: there is no 'TF23'"),
        (".execute_async_v3(", ".execute_async_v4(", "IExecutionContext.execute_async_v4: there is no"),
        ("config.builder_optimization_level =", "config.builder_optimisation_level =", "there is no"),
        ("trt.IOptimizationProfile", "trt.IOptimisationProfile", "IOptimisationProfile: there is no"),
        ("def step_complete(self, phase_name: str, step: int)", "def step_complete(self, step: int)", "arguments"),
        ("context.set_input_shape(name, shape)", "context.set_input_shape(shape)", "arguments"),
        ("compiled.set_shape(name,", "compiled.set_shape(0, name,", "arguments"),
    ],
)
def test_a_wrong_name_is_found(right, wrong, fault, bindings):
    sources = SOURCES[bindings["CVNET_BINDINGS"]]
    assert any(right in source for source in sources)
    doctored = [source.replace(right, wrong) for source in sources]
    faults = missing(of_tensorrt(set().union(*map(uses, doctored))), bindings)
    assert any(fault in text for text in faults), faults


def test_a_read_only_property_that_is_set_is_found(bindings):
    asked = uses("def f(engine: trt.ICudaEngine):\n    engine.num_io_tensors = 1\n")
    assert missing(asked, bindings) == ["ICudaEngine.num_io_tensors: cannot be set"]


def test_a_flag_that_11_removed_is_found_there_and_in_rtx(bindings):
    faults = missing([Use("tensorrt", "BuilderFlag.FP16", "get", -1)], bindings)
    assert bool(faults) != bindings["CVNET_BINDINGS"].startswith("10")


def test_names_that_only_rtx_has_are_checked_in_rtx_only():
    only = {use.path for use in USES[RTX] - USES[VERSIONS[0]]}
    assert {"IBuilderConfig.set_compute_capability", "CudaGraphStrategy.WHOLE_GRAPH_CAPTURE"} <= only


def test_names_of_the_cuda_runtime_exist():
    runtime = pytest.importorskip("cuda.bindings.runtime", reason="cuda-bindings is not installed")
    asked = {use for use in USES[RTX] if use.module == "cuda"}
    names = {"cudaMalloc", "cudaMemcpyKind.cudaMemcpyHostToDevice", "cudaStreamNonBlocking", "cudaGraphLaunch"}
    assert names <= {use.path for use in asked}
    assert tensorrt_contract.missing(asked, runtime) == []
    assert tensorrt_contract.missing([Use("cuda", "cudaMallocc", "get", 1)], runtime)


def test_names_are_collected_from_the_source():
    assert {
        Use("tensorrt", "Runtime", "get", 1),
        Use("tensorrt", "ICudaEngine.get_tensor_profile_shape", "get", 2),
        Use("tensorrt", "IExecutionContext.execute_async_v3", "get", 1),
        Use("tensorrt", "IExecutionContext.set_device_memory", "get", 2),
        Use("tensorrt", "IBuilderConfig.builder_optimization_level", "set", -1),
        Use("tensorrt", "IBuilderConfig.progress_monitor", "set", -1),
        Use("tensorrt", "BuilderFlag.TF32", "get", -1),
        Use("tensorrt", "IProgressMonitor.phase_start", "override", 4),
        Use("tensorrt", "ILogger.Severity.ERROR", "get", -1),
        Use("tensorrt", "ParserError.desc", "get", 0),
    } <= USES[VERSIONS[0]]


def test_an_object_of_unknown_class_is_refused():
    source = (
        "def f(engine: trt.ICudaEngine):\n    context = engine.create_execution_context()\n    context.anything()\n"
    )
    with pytest.raises(UnknownClassError, match="create_execution_context"):
        uses(source)
