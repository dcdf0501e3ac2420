import pathlib
import pickle

import pytest

from gateway.config.load import ConfigSource, Flags, load
from gateway.errors import Code, ConfigError

KEY = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def refused(path: str | pathlib.Path, flags: Flags | None = None) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        load(str(path), flags)
    assert caught.value.code is Code.CONFIG_INVALID
    return caught.value.problems


def test_without_anything_the_defaults_hold() -> None:
    """No file, no flag and no variable is a configuration, with nothing set."""
    config = load()
    assert config.workers == ()
    assert config.server.port == 30_000
    assert config.model_fields_set == set()


def test_a_file_is_read(tmp_path: pathlib.Path) -> None:
    """A UTF-8 file, also one with a byte order mark, becomes a configuration."""
    path = tmp_path / "smg.yaml"
    path.write_bytes(b"\xef\xbb\xbfworkers:\n  - url: http://a:1\n    labels: {zone: \xc3\xbc}\n")
    (worker,) = load(str(path)).workers
    assert (worker.url, worker.labels) == ("http://a:1", {"zone": "ü"})


def test_every_flag_wins_over_the_file(tmp_path: pathlib.Path) -> None:
    """A flag that was given stands instead of what the file says, lists too."""
    path = tmp_path / "smg.yaml"
    path.write_text(
        "server: {host: 127.0.0.1, port: 1, metrics_port: 2, processes: 3}\n"
        "workers: [{url: 'http://a:1'}, {url: 'http://b:1'}]\n"
        "routing: {policy: random, cache_threshold: 0.7}\n"
        "log: {level: error, json_lines: false}\n"
        f"auth: {{keys: [{{id: x, sha256: {KEY}}}]}}\n"
    )
    flags = Flags(
        worker_urls=("http://c:1", "https://d"), policy="sticky", host="::1", port=10, metrics_port=20, processes=2,
        model_path=str(tmp_path), log_level="debug", log_json=True, api_key="other",
    )  # fmt: skip
    config = load(str(path), flags)
    assert [worker.url for worker in config.workers] == ["http://c:1", "https://d"]
    assert (config.routing.policy, config.routing.cache_threshold) == ("sticky", 0.7)
    server = config.server
    assert (server.host, server.port, server.metrics_port, server.processes) == ("::1", 10, 20, 2)
    assert (config.log.level, config.log.json_lines, config.model_path) == ("debug", True, str(tmp_path))
    assert [key.id for key in config.auth.keys] == ["api-key"]


def test_the_key_of_a_flag_is_kept_as_a_hash() -> None:
    """The key opens data and control plane, asks for any class, and stands nowhere in the configuration."""
    config = load(None, Flags(api_key="abc"))
    (key,) = config.auth.keys
    assert (key.sha256, key.roles, key.max_priority) == (KEY, ("data", "admin"), "system")
    assert "abc'" not in repr(config)
    assert "abc" not in repr(Flags(api_key="abc"))


def test_what_was_set_can_be_told_from_a_default() -> None:
    """A metrics port that was given, by whatever layer, counts as set."""
    assert "metrics_port" not in load(None, Flags(port=1)).server.model_fields_set
    assert "metrics_port" in load(None, Flags(metrics_port=29_000)).server.model_fields_set


def test_mistakes_of_flags_and_file_come_together(tmp_path: pathlib.Path) -> None:
    """Flags are named by their name and come first, the file's mistakes by their line."""
    path = tmp_path / "smg.yaml"
    path.write_text("retry: {max_attempts: 0}\nserver:\n  port: x\n  hots: y\n  hots: z\n")
    assert refused(path, Flags(port=-1, policy="fast", worker_urls=("http://a", "b"), model_path="/nonexistent")) == (
        "--port: server.port: must be greater than or equal to 0, not -1",
        "--policy: routing.policy: must be one of round_robin, random, power_of_two, least_load, cache_aware, prefix_hash, "
        "consistent_hashing, bucket, sticky or passthrough, not 'fast'",
        "--worker-url: workers[1].url: has no scheme; did you mean http://b?",
        "--model-path: model_path: no such folder: /nonexistent",
        f"{path}:1: retry.max_attempts: must be greater than or equal to 1, not 0",
        f"{path}:4: server.hots: unknown key; did you mean `host`?",
        f"{path}:5: server.hots: is given twice, first in line 4",
    )


def test_a_flag_over_something_that_is_no_section_is_a_mistake(tmp_path: pathlib.Path) -> None:
    """`server: 3` is named although a flag put a section in its place."""
    path = tmp_path / "smg.yaml"
    path.write_text("server: 3\n")
    assert refused(path, Flags(port=1)) == (f"{path}:1: server: must be a mapping of keys to values",)


def test_a_file_that_cannot_be_read_is_the_mistake(tmp_path: pathlib.Path) -> None:
    """A missing file, a folder, and bytes that are no UTF-8 are named; mistakes of flags still beside them."""
    assert refused(tmp_path / "none.yaml", Flags(port=-1)) == (
        f"{tmp_path / 'none.yaml'}: no such file",
        "--port: server.port: must be greater than or equal to 0, not -1",
    )
    assert refused(tmp_path) == (f"{tmp_path}: cannot be read: is a directory",)
    path = tmp_path / "latin.yaml"
    path.write_bytes(b"a: \xe9\n")
    assert refused(path) == (f"{path}: not UTF-8, at byte 3",)


def test_a_source_reads_the_file_anew(tmp_path: pathlib.Path) -> None:
    """What changed between two loads is seen, and flags still win."""
    path = tmp_path / "smg.yaml"
    path.write_text("server: {port: 1}\nretry: {max_attempts: 1}")
    source = ConfigSource(str(path), Flags(port=9))
    assert source.load().retry.max_attempts == 1
    path.write_text("server: {port: 2}\nretry: {max_attempts: 2}")
    config = source.load()
    assert (config.retry.max_attempts, config.server.port) == (2, 9)


def test_a_text_stands_in_place_of_the_file(tmp_path: pathlib.Path) -> None:
    """The file is not read then; mistakes have the name that the text was given."""
    source = ConfigSource(str(tmp_path / "none.yaml"), Flags(port=9))
    config = source.load_text("workers: [{url: 'http://a'}]")
    assert (len(config.workers), config.server.port) == (1, 9)
    with pytest.raises(ConfigError) as caught:
        source.load_text("a: 1")
    assert caught.value.problems[0].startswith("configuration:1: a: unknown key")
    with pytest.raises(ConfigError) as caught:
        source.load_text("a: 1", "body")
    assert caught.value.problems[0].startswith("body:1: a: unknown key")


def test_a_source_can_be_handed_to_another_process() -> None:
    """Source and configuration survive pickling with what was set."""
    source = ConfigSource("smg.yaml", Flags(port=1, worker_urls=("http://a",)))
    assert pickle.loads(pickle.dumps(source)) == source
    config = source.load_text("")
    assert pickle.loads(pickle.dumps(config)).server.model_fields_set == {"port"}
