"""The search page and the HTTP API: a gallery and the engines that search it, kept open and shared."""
