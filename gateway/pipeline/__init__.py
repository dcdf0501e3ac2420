"""The request path, one phase a file: parse, admit, route, transform, send, relay, account; `run` drives them."""
