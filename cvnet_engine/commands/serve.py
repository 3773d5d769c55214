"""`serve`: the search page and the API over HTTP."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

from cvnet_engine import console
from cvnet_engine.engine.bundle import Bundle
from cvnet_engine.engine.cluster import Cluster
from cvnet_engine.engine.errors import CvnetError, counted, install_hint
from cvnet_engine.engine.gallery.info import read_info
from cvnet_engine.engine.gallery.shard_workers import shard_workers
from cvnet_engine.engine.retrieval.engines import Engines
from cvnet_engine.options import ServeOptions, cluster_of

try:
    import python_multipart  # noqa: F401  (without it the server starts but fails at the first form)
    import uvicorn

    from cvnet_engine.server.access import Access, is_loopback
    from cvnet_engine.server.app import create_app
    from cvnet_engine.server.served_gallery import LayOut, ServedGallery, in_one_place
    from cvnet_engine.server.service import ModelInfo
except ImportError as error:
    raise CvnetError(f"serve needs {error.name}: {install_hint('serve')}") from error

BACKLOG = 128  # connections waiting to be accepted
GRACE_S = 5  # for running requests when the server stops


def run(options: ServeOptions) -> None:
    if not is_loopback(options.host) and not options.token:
        raise CvnetError(
            f"--host {options.host} accepts other machines; set a --token, which their requests must carry"
        )
    bundle = Bundle(options.bundle)
    made = read_info(options.gallery)
    model = ModelInfo(
        bundle.manifest.model,
        bundle.manifest.features_id,
        console.notice(bundle.manifest),
        options.preset or "exact",
    )
    with (
        contextlib.closing(listen(options.host, options.port)) as listener,
        Engines.open(bundle, options.threads, made.scales) as engines,
        searching(bundle, cluster_of(options)) as lay_out,
    ):
        served = ServedGallery(options.gallery, made.by(bundle.manifest), engines, lay_out)
        app = create_app(engines, served, model, Access(options.host, options.token or None))
        console.warn_of_model(bundle.manifest)
        port = listener.getsockname()[1]
        host = f"[{options.host}]" if ":" in options.host else options.host
        console.say(f"{counted(len(served.snapshot), 'image')} at http://{host}:{port} (Ctrl-C stops)")
        config = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=GRACE_S,
        )
        with contextlib.suppress(KeyboardInterrupt):
            uvicorn.Server(config).run(sockets=[listener])


@contextlib.contextmanager
def searching(bundle: Bundle, cluster: Cluster | None) -> Iterator[LayOut]:
    """Yield the function that makes a gallery searchable, in this process or by the shard workers of a cluster."""
    if not cluster:
        yield in_one_place
        return
    with shard_workers(bundle, cluster) as workers:
        console.say(f"{counted(len(workers.workers), 'shard worker')} started")
        yield lambda _, gallery: workers.searcher(gallery)


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket.

    Raises:
        CvnetError: the address is not this machine's, or the port is in use.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except (OSError, UnicodeError) as error:  # UnicodeError: an invalid host name
        reason = error.strerror if isinstance(error, OSError) else "not a host name"
        raise CvnetError(f"{host}:{port}: cannot listen there ({reason}); choose another --port or --host") from error
