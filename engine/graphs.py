"""The graphs that a model is deployed as, by name."""

IMAGE_GRAPHS = ("descriptor", "features")  # image -> descriptor; image -> descriptor and unit maps
GRAPH_NAMES = (*IMAGE_GRAPHS, "reranker")  # the last: unit maps of a query and of keys -> pair scores
DESCRIPTOR_NAMES = {"cvnet": "CVNet", "superglobal": "SuperGlobal"}  # whose descriptor the image graphs make
