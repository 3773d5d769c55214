"""HTTP server: the search page and the API, with one gallery and its engines shared by all requests."""
