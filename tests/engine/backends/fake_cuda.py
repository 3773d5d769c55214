"""A stand-in for the CUDA runtime, whose device is the host's memory.

Work on a stream is done as late as it may be: when something waits for it. So whoever forgets to wait, or writes to
memory that is still to be read, gets wrong numbers.
"""

# It has the names and the arguments of what it stands in for.
# ruff: noqa: ARG002, N802, N815

import ctypes
import enum
from itertools import count
from types import SimpleNamespace


class Status(enum.Enum):
    """Of a CUDA runtime call."""

    cudaSuccess = 0
    cudaErrorMemoryAllocation = 2
    cudaErrorStreamCaptureInvalidated = 901


DONE = (Status.cudaSuccess,)


class FakeCudart:
    """The CUDA runtime on host memory.

    Attributes:
        memory, streams, events, graphs: what is there and not given back, by address or handle.
        copies: bytes of each copy to the device, in order.
        launches: of graphs.
        limit_bytes: of one allocation.
    """

    cudaMemcpyKind = SimpleNamespace(cudaMemcpyHostToDevice=1, cudaMemcpyDeviceToHost=2)
    cudaStreamCaptureMode = SimpleNamespace(cudaStreamCaptureModeThreadLocal=1)
    cudaStreamNonBlocking, cudaEventDisableTiming = 1, 2

    def __init__(self):
        self.memory, self.streams, self.events, self.graphs = {}, {}, {}, {}
        self.handles = count(1)
        self.allocations = self.launches = 0
        self.copies = []
        self.limit_bytes = 1 << 20
        self.capturing = None  # the work of the stream that is captured, as it was before

    def cudaMalloc(self, size):
        if size > self.limit_bytes:
            return Status.cudaErrorMemoryAllocation, None
        block = ctypes.create_string_buffer(size)
        self.memory[ctypes.addressof(block)] = block
        self.allocations += 1
        return Status.cudaSuccess, ctypes.addressof(block)

    cudaMallocHost = cudaMalloc

    def cudaFree(self, address):
        if address:
            del self.memory[address]
        return DONE

    cudaFreeHost = cudaFree

    def cudaMemcpyAsync(self, target, source, size, kind, stream):
        if kind == self.cudaMemcpyKind.cudaMemcpyHostToDevice:
            self.copies.append(size)

        def copy():
            assert {target, source} <= self.memory.keys(), "memory that was given back"
            ctypes.memmove(target, source, size)

        self.streams[stream].append(copy)
        return DONE

    def new(self, kind, content):
        handle = next(self.handles)
        kind[handle] = content
        return Status.cudaSuccess, handle

    def cudaStreamCreateWithFlags(self, flags):
        assert flags == self.cudaStreamNonBlocking
        return self.new(self.streams, [])

    def cudaStreamSynchronize(self, stream):
        assert self.capturing is None
        self.work_off(stream, len(self.streams[stream]))
        return DONE

    def cudaStreamDestroy(self, stream):
        assert not self.streams.pop(stream)
        return DONE

    def work_off(self, stream, number):
        for _ in range(number):
            self.streams[stream].pop(0)()

    def cudaEventCreateWithFlags(self, flags):
        assert flags == self.cudaEventDisableTiming
        return self.new(self.events, lambda: None)

    def cudaEventRecord(self, event, stream):
        """Passing it works off what is on the stream so far."""

        def mark():
            pass

        self.streams[stream].append(mark)

        def work_up_to_mark():
            while mark in self.streams[stream]:
                self.work_off(stream, 1)

        self.events[event] = work_up_to_mark
        return DONE

    def cudaEventSynchronize(self, event):
        self.events[event]()
        return DONE

    def cudaStreamWaitEvent(self, stream, event, flags):
        assert self.capturing is None, "an event from outside a capture"
        self.streams[stream].append(self.events[event])
        return DONE

    def cudaEventDestroy(self, event):
        del self.events[event]
        return DONE

    def cudaStreamBeginCapture(self, stream, mode):
        assert mode == self.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self.capturing, self.streams[stream] = self.streams[stream], []
        return DONE

    def cudaStreamEndCapture(self, stream):
        work, self.streams[stream], self.capturing = self.streams[stream], self.capturing, None
        if not work:
            return Status.cudaErrorStreamCaptureInvalidated, None
        return self.new(self.graphs, work)

    def cudaGraphInstantiate(self, graph, flags):
        return self.new(self.graphs, self.graphs[graph])

    def cudaGraphDestroy(self, graph):
        del self.graphs[graph]
        return DONE

    cudaGraphExecDestroy = cudaGraphDestroy

    def cudaGraphLaunch(self, graph, stream):
        self.launches += 1
        self.streams[stream].extend(self.graphs[graph])
        return DONE

    def cudaGetDeviceProperties(self, device):
        return Status.cudaSuccess, SimpleNamespace(major=9, minor=0)

    def cudaDriverGetVersion(self):
        return Status.cudaSuccess, 13020
