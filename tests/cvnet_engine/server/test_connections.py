"""Clients that hang up, over real sockets."""

from __future__ import annotations

import json
import socket

import pytest

from cvnet_engine.server.served_gallery import id_of


@pytest.mark.parametrize("accept", ["application/json", "text/event-stream"])
def test_a_closed_connection_cancels_its_search(run, photos, accept):
    server = run()
    server.engines.gate.clear()
    body = json.dumps({"id": id_of(photos[0])})
    request = (
        "POST /v1/search HTTP/1.1",
        "Host: localhost",
        f"Accept: {accept}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
    )
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall("\r\n".join((*request, "", body)).encode())
        assert server.engines.reached.wait(60)
    assert server.scheduler.cancelled.wait(60)
    server.engines.gate.set()
    assert server.engines.closed.wait(60)
    assert server.engines.batches == 1  # the one under way, of three
