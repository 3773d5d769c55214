# Two targets do everything on a fresh machine with Python 3.11+, make and a C compiler: `make demo`, `make test`.

PYTHON ?= python3
UV := $(or $(shell command -v uv),.uv/bin/uv)
SYNC = $(UV) sync --frozen --python $(PYTHON) $(foreach extra,export bench parquet photos ray serve tensorrt-rtx,--extra $(extra))
TWO_AT_ONCE = -n 2 --dist loadfile
NVIDIA := $(wildcard /proc/driver/nvidia/version)
export UV_PYTHON_DOWNLOADS = never

.PHONY: setup demo test test-slow lint native-check clean

setup: .venv/ready

demo: setup
	.venv/bin/cvnet-engine demo

test: setup
	.venv/bin/python -m pytest $(TWO_AT_ONCE)

test-slow: setup
	.venv/bin/python -m pytest -m slow $(TWO_AT_ONCE)

lint: setup
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

native-check: setup
	.venv/bin/python -m tests.engine.backends.native_check

clean:
	rm -rf .venv .uv demo

.venv/ready: pyproject.toml uv.lock | $(UV)
ifeq ($(NVIDIA),)
	$(SYNC) --extra cpu --extra openvino
else
	$(SYNC) --extra gpu --extra tensorrt || { echo "without TensorRT, whose own index was not reached"; $(SYNC) --extra gpu; }
endif
	touch $@

.uv/bin/uv:
	$(PYTHON) -m pip install --quiet --target .uv uv
