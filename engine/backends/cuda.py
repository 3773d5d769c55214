"""CUDA streams, events, tensor memory and graphs for the TensorRT engines, through NVIDIA's cuda-bindings."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from threading import Lock
from typing import Any

import numpy as np

from cvnet_engine.engine.contract import Array
from cvnet_engine.engine.errors import BackendError, import_library

Shape = tuple[int, ...]


class Stream:
    """A queue of device work, done in order. Work on several streams may overlap."""

    def __init__(self, cudart: Any) -> None:
        self._cudart = cudart
        self.handle = checked(cudart.cudaStreamCreateWithFlags(cudart.cudaStreamNonBlocking))

    def wait(self, event: Event) -> None:
        """Make later work on this stream wait for an event on another."""
        checked(self._cudart.cudaStreamWaitEvent(self.handle, event.handle, 0))

    def synchronise(self) -> None:
        checked(self._cudart.cudaStreamSynchronize(self.handle))

    def destroy(self) -> None:
        checked(self._cudart.cudaStreamDestroy(self.handle))


class Event:
    """A point on a stream; one that was never recorded counts as passed."""

    def __init__(self, cudart: Any) -> None:
        self._cudart = cudart
        self.handle = checked(cudart.cudaEventCreateWithFlags(cudart.cudaEventDisableTiming))

    def record(self, stream: Stream) -> None:
        checked(self._cudart.cudaEventRecord(self.handle, stream.handle))

    def synchronise(self) -> None:
        checked(self._cudart.cudaEventSynchronize(self.handle))

    def destroy(self) -> None:
        checked(self._cudart.cudaEventDestroy(self.handle))


class Buffer:
    """Device memory of one tensor and its pinned mirror on the host, which grow together.

    Attributes:
        device: address; 0 before the first `reserve`.
        moves: number of times that the address has changed.
        copied: event after the last upload.
    """

    def __init__(self, cudart: Any) -> None:
        self._cudart = cudart
        self._size_bytes = 0
        self.device = self._host = 0
        self.moves = 0
        self.copied = Event(cudart)

    def reserve(self, shape: Shape, dtype: np.dtype[Any]) -> Array:
        """Return host memory as an array of this shape, with device memory of the same size."""
        size_bytes = max(int(np.prod(shape)) * dtype.itemsize, 1)  # an empty tensor needs an address too
        if size_bytes > self._size_bytes:
            self._release()
            self.device = int(checked(self._cudart.cudaMalloc(size_bytes)))
            self._host = int(checked(self._cudart.cudaMallocHost(size_bytes)))
            self._size_bytes = size_bytes
        memory = memoryview((ctypes.c_ubyte * size_bytes).from_address(self._host))
        return np.ndarray(shape, dtype, memory)

    def upload(self, array: Array, dtype: np.dtype[Any], stream: Stream) -> None:
        """Begin to copy an array to the device, as `dtype`. The array may change as soon as this returns."""
        self.copied.synchronise()  # the previous copy may still read the mirror
        mirror = self.reserve(array.shape, dtype)
        mirror[...] = array
        kind = self._cudart.cudaMemcpyKind.cudaMemcpyHostToDevice
        checked(self._cudart.cudaMemcpyAsync(self.device, self._host, mirror.nbytes, kind, stream.handle))
        self.copied.record(stream)

    def download(self, size_bytes: int, stream: Stream) -> None:
        kind = self._cudart.cudaMemcpyKind.cudaMemcpyDeviceToHost
        checked(self._cudart.cudaMemcpyAsync(self._host, self.device, size_bytes, kind, stream.handle))

    def free(self) -> None:
        self._release()
        self.copied.destroy()

    def _release(self) -> None:
        device, host = self.device, self._host
        self._size_bytes = self.device = self._host = 0
        self.moves += 1
        checked(self._cudart.cudaFree(device))  # both ignore address 0
        checked(self._cudart.cudaFreeHost(host))


class Input:
    """An input's two buffers: runs read one while any thread fills the other.

    A sent array is recognised by identity and is not copied again while a buffer holds it.
    """

    def __init__(self, cudart: Any, dtype: np.dtype[Any], copies: Stream) -> None:
        """
        Args:
            copies: the stream for uploads.
        """
        self._dtype, self._copies = dtype, copies
        self._lock = Lock()
        self._read, self._filled = Buffer(cudart), Buffer(cudart)
        self._in_read: Array | None = None  # the arrays that were sent and are there
        self._in_filled: Array | None = None

    def send(self, array: Array) -> None:
        """Begin to copy an array to the device for a later `take` of the same object, which must not change."""
        with self._lock:
            if array is not self._in_read and array is not self._in_filled:
                self._in_filled = None
                self._filled.upload(array, self._dtype, self._copies)
                self._in_filled = array

    def take(self, array: Array) -> Buffer:
        """Return the buffer that holds the array or receives it. The array is copied unless it was sent before.

        No run may still read the buffer that was taken before.
        """
        with self._lock:
            if array is self._in_filled:
                self._read, self._filled = self._filled, self._read
                self._in_read, self._in_filled = self._in_filled, self._in_read
            elif array is not self._in_read:
                self._in_read = None
                self._read.upload(array, self._dtype, self._copies)
            return self._read

    @property
    def moves(self) -> int:
        return self._read.moves + self._filled.moves

    def free(self) -> None:
        self._in_read = self._in_filled = None
        self._read.free()
        self._filled.free()


class Graph:
    """Work captured from a stream and launched as one. It is valid for the memory addresses of the captured work."""

    def __init__(self, cudart: Any, stream: Stream, enqueue: Callable[[], None]) -> None:
        """
        Args:
            enqueue: puts the work on the stream; the capture records it without running it.
        """
        self._cudart = cudart
        mode = cudart.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal  # other threads may allocate meanwhile
        checked(cudart.cudaStreamBeginCapture(stream.handle, mode))
        try:
            enqueue()
        finally:
            # after a failure too: otherwise the stream stays in capture mode
            ended = cudart.cudaStreamEndCapture(stream.handle)
        graph = checked(ended)
        try:
            self._executable = checked(cudart.cudaGraphInstantiate(graph, 0))
        finally:
            checked(cudart.cudaGraphDestroy(graph))

    def launch(self, stream: Stream) -> None:
        checked(self._cudart.cudaGraphLaunch(self._executable, stream.handle))

    def destroy(self) -> None:
        checked(self._cudart.cudaGraphExecDestroy(self._executable))


def import_cudart() -> Any:
    return import_library("cuda.bindings.runtime", "cuda-bindings", "tensorrt")


def checked(result: tuple[Any, ...]) -> Any:
    """Return the value of a CUDA runtime call, whose results begin with its status; BackendError if it failed."""
    status, *values = result
    if status.value:
        raise BackendError(f"CUDA stopped ({status.name}); free GPU memory, or check the driver with 'nvidia-smi'")
    return values[0] if values else None
