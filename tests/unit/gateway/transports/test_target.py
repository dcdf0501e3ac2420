"""A worker's URL says where to connect and what to write, or is refused with the reason."""

from __future__ import annotations

import os
import ssl
from pathlib import Path

import pytest
import trustme

from gateway.errors import ConfigError
from gateway.transports.target import Target, target_of


@pytest.mark.parametrize(
    ("url", "host", "port", "prefix", "authority"),
    [
        ("http://10.0.0.1:8000", "10.0.0.1", 8000, b"", b"10.0.0.1:8000"),
        ("http://worker", "worker", 80, b"", b"worker"),
        ("http://worker:443", "worker", 443, b"", b"worker:443"),
        ("https://worker", "worker", 443, b"", b"worker"),
        ("https://worker:80", "worker", 80, b"", b"worker:80"),
        ("HTTP://Worker.Example:8000/", "worker.example", 8000, b"", b"worker.example:8000"),
        ("http://worker:8000//", "worker", 8000, b"", b"worker:8000"),
        ("http://gw:8000/engines/a", "gw", 8000, b"/engines/a", b"gw:8000"),
        ("http://gw/engines/a/", "gw", 80, b"/engines/a", b"gw"),
        ("http://gw/a%20b", "gw", 80, b"/a%20b", b"gw"),
        ("http://[::1]:8000", "::1", 8000, b"", b"[::1]:8000"),
        ("http://[2001:DB8::1]", "2001:db8::1", 80, b"", b"[2001:db8::1]"),
        ("http://[fe80::1%25eth0]:8000/x", "fe80::1%eth0", 8000, b"/x", b"[fe80::1]:8000"),
        ("http://b\u00fccher.example", "xn--bcher-kva.example", 80, b"", b"xn--bcher-kva.example"),
        ("http://my_worker-0.svc:1", "my_worker-0.svc", 1, b"", b"my_worker-0.svc:1"),
    ],
)
def test_urls(url: str, host: str, port: int, prefix: bytes, authority: bytes) -> None:
    """Host, port, prefix and the `host` header of every form of URL."""
    target = target_of(url)
    assert (target.host, target.port, target.prefix, target.authority) == (host, port, prefix, authority)
    assert (target.tls is not None) is url.lower().startswith("https")
    assert target.server_hostname == (host if target.tls else None)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("", "http://"),
        ("worker:8000", "http://"),
        ("//worker", "http://"),
        ("ftp://worker", "http://"),
        ("grpc://worker:1", "http://"),
        ("http://", "no host"),
        ("http:///path", "no host"),
        ("http://:8000", "no host"),
        ("http://worker:0", "port"),
        ("http://worker:", "port"),
        ("http://worker:65536", "not a valid url"),
        ("http://worker:http", "not a valid url"),
        ("http://worker:-1", "not a valid url"),
        ("http://[::1", "not a valid url"),
        ("http://[zz]:1", "not a valid url"),
        ("http://user:secret@worker", "api_key"),
        ("http://user@worker", "api_key"),
        ("http://worker/?a=b", "query"),
        ("http://worker?", "query"),
        ("http://worker/#x", "fragment"),
        ("http://wor ker", "space"),
        ("http://worker\r\nx: y", "control"),
        ("http://worker/\x00", "control"),
        ("http://worker/a b", "space"),
        ("http://worker/\u00fc", "percent-encoded"),
        ("http://worker/a/../b", "dot segment"),
        ("http://worker/.", "dot segment"),
        ('http://worker/"', "percent-encoded"),
        ("http://wor$ker", "not a valid name"),
        ("http://" + "a" * 64, "not a valid name"),
        ("http://a..b", "not a valid name"),
    ],
)
def test_refused_urls(url: str, words: str) -> None:
    """What cannot be connected to, or would change what is written, is a configuration error that says why."""
    with pytest.raises(ConfigError) as caught:
        target_of(url)
    assert words in str(caught.value)
    assert "secret" not in str(caught.value)


def test_tls_checks_the_worker() -> None:
    """By default the certificate and the name are checked, with TLS 1.2 or newer; `verify_tls=False` checks nothing."""
    strict = target_of("https://worker").tls
    assert strict is not None
    assert strict.check_hostname and strict.verify_mode is ssl.CERT_REQUIRED and strict.minimum_version >= ssl.TLSVersion.TLSv1_2
    lax = target_of("https://worker", verify_tls=False).tls
    assert lax is not None
    assert not lax.check_hostname and lax.verify_mode is ssl.CERT_NONE


def test_contexts_are_made_once(tmp_path: Path) -> None:
    """Workers with the same way of checking share a context, until the CA file changes."""
    assert target_of("https://a").tls is target_of("https://b").tls
    assert target_of("https://a", verify_tls=False).tls is not target_of("https://a").tls
    path = tmp_path / "ca.pem"
    trustme.CA().cert_pem.write_to_path(path)
    first = target_of("https://a", ca_file=str(path)).tls
    assert first is not None and first is target_of("https://b", ca_file=str(path)).tls
    assert first is not target_of("https://a").tls and len(first.get_ca_certs()) == 1
    trustme.CA().cert_pem.write_to_path(path)
    os.utime(path, ns=(1, 1))
    assert target_of("https://a", ca_file=str(path)).tls is not first


def test_ca_files_that_cannot_be_used(tmp_path: Path) -> None:
    """A CA file that is missing or holds no certificate is a configuration error."""
    with pytest.raises(ConfigError, match="cannot be read"):
        target_of("https://worker", ca_file=str(tmp_path / "none.pem"))
    (tmp_path / "bad.pem").write_text("not pem")
    with pytest.raises(ConfigError, match="no certificate"):
        target_of("https://worker", ca_file=str(tmp_path / "bad.pem"))
    target_of("http://worker", ca_file=str(tmp_path / "none.pem"))


def test_a_target_is_a_value() -> None:
    """Equal URLs give equal targets, which can be keys."""
    assert target_of("http://a:1/x") == target_of("http://a:1/x/") == Target("a", 1, prefix=b"/x")
    assert len({target_of("https://a"), target_of("https://a")}) == 1
