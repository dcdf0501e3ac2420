import pytest

from gateway.config.url import identity, problem_of


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:8000",
        "http://engine",
        "https://engine.internal/",
        "http://[::1]:8000",
        "https://host/team-a/engine",
        "grpc://10.0.0.1:50051",
        "HTTP://Engine:80",
    ],
)
def test_urls_of_workers(url: str) -> None:
    """Scheme, host, and where it is not the default a port; HTTP may have a path before the routes."""
    assert problem_of(url) is None


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("", "is empty; write http://HOST:PORT"),
        ("http://a b", "holds a space or a control character"),
        ("http://a\n", "holds a space or a control character"),
        ("10.0.0.1:8000", "has no scheme; did you mean http://10.0.0.1:8000?"),
        ("ftp://a", "begins with ftp://; use http://, https:// or grpc://"),
        ("http://user:secret@a", "must not hold a user or a password; give the worker an `api_key_env`"),
        ("http://a?x=1", "must not have a query or a fragment"),
        ("http://a#x", "must not have a query or a fragment"),
        ("http://:80", "names no host; write http://HOST:PORT"),
        ("http://", "names no host; write http://HOST:PORT"),
        ("http://a:0", "has no usable port"),
        ("http://a:", "has no usable port"),
        ("http://a:99999", "is not a valid url; write http://HOST:PORT"),
        ("http://[::1", "is not a valid url; write http://HOST:PORT"),
        ("http://a/v1", "ends in /v1, which the gateway adds by itself; leave it out"),
        ("http://a/v1/", "ends in /v1, which the gateway adds by itself; leave it out"),
        ("http://a/x/../y", "has a path with characters that must be percent-encoded, or a dot segment"),
        ("http://a/ü", "has a path with characters that must be percent-encoded, or a dot segment"),
        ("grpc://a", "has no port; write grpc://HOST:PORT"),
        ("grpc://a:1/x", "must not have a path"),
    ],
)
def test_what_is_no_url_of_a_worker(url: str, problem: str) -> None:
    """Each problem says what to write instead, and none repeats a password."""
    assert problem_of(url) == problem


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("http://a", "http://A:80/"),
        ("https://a", "https://a:443"),
        ("http://a.", "http://a"),
        ("http://[::1]:8000", "http://[::1]:8000/"),
        ("HTTP://a:1/x", "http://a:1/x/"),
    ],
)
def test_urls_that_mean_the_same_worker(one: str, other: str) -> None:
    """Case, default ports and trailing slashes make no other worker."""
    assert identity(one) == identity(other)


def test_urls_that_mean_different_workers() -> None:
    """Scheme, host, port and path each make another worker."""
    urls = ["http://a", "https://a", "http://b", "http://a:81", "http://a/x", "http://a/X", "grpc://a:80", "http://[::1]"]
    assert len({identity(url) for url in urls}) == len(urls)
