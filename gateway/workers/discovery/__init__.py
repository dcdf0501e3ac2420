"""Where workers are found: sources that each say, again and again, the whole list of workers that there should be."""

from __future__ import annotations

from gateway.config.model import Discovery, DnsDiscovery, FileDiscovery, KubernetesDiscovery
from gateway.workers.discovery.dns import DnsSource
from gateway.workers.discovery.file import FileSource
from gateway.workers.discovery.kubernetes import KubernetesSource
from gateway.workers.discovery.source import Hear, Source

__all__ = ["Hear", "Source", "make"]


def make(config: Discovery) -> Source:
    """Make the source of a section; nothing is opened.

    Raises:
        ConfigError: what the source needs is not installed, or its template makes no worker.
    """
    match config:
        case FileDiscovery():
            return FileSource(config)
        case DnsDiscovery():
            return DnsSource(config)
        case KubernetesDiscovery():
            return KubernetesSource(config)
