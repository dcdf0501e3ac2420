import json

import yaml

from gateway.config.load import ConfigSource, Flags
from gateway.config.mask import MASK, masked
from gateway.config.model import GatewayConfig
from gateway.config.show import to_yaml

TEXT = """
workers:
  - {url: "http://a", api_key: topsecret, engine: vllm}
  - {url: "http://b", api_key_env: ENGINE_KEY}
discovery:
  - {kind: dns, name: n, port: 1, worker: {api_key: topsecret, cost: 2}}
"""


def config() -> GatewayConfig:
    return GatewayConfig.model_validate(yaml.safe_load(TEXT))


def test_no_secret_is_shown() -> None:
    """Tokens of workers and templates, and the hashes of keys, are masks; names of variables are not secret."""
    values = masked(config())
    assert values["workers"][0]["api_key"] == MASK
    assert values["workers"][1]["api_key"] is None
    assert values["workers"][1]["api_key_env"] == "ENGINE_KEY"
    assert values["discovery"][0]["worker"] == {"api_key": MASK, "cost": 2}
    keyed = masked(ConfigSource(flags=Flags(api_key="topsecret")).load())
    assert keyed["auth"]["keys"][0]["sha256"] == MASK
    assert "topsecret" not in json.dumps([values, keyed])


def test_plain_values_hold_every_key_and_fit_json() -> None:
    """All sections are there with their defaults, enums as words and tuples as lists."""
    values = masked(config())
    assert list(values) == list(GatewayConfig.model_fields)
    assert json.loads(json.dumps(values)) == values
    assert values["workers"][0]["engine"] == "vllm"
    assert values["server"]["request_id_headers"][0] == "x-request-id"


def test_what_was_not_set_can_be_left_out() -> None:
    """Only what somebody wrote is left, in the order of the model."""
    assert masked(ConfigSource().load_text("retry: {max_attempts: 2}\nserver: {port: 1}"), only_set=True) == {
        "server": {"port": 1},
        "retry": {"max_attempts": 2},
    }


def test_yaml_of_a_configuration_loads_to_the_same() -> None:
    """A configuration without secrets survives being shown and read, special words included."""
    text = "workers: [{url: 'http://a', labels: {on: 'no', 'null': '1', ü: 'true'}}]\nlog: {level: debug}\n"
    before = ConfigSource().load_text(text)
    assert ConfigSource().load_text(to_yaml(before)) == before
    assert to_yaml(before, only_set=True) == (
        "workers:\n- url: http://a\n  labels:\n    'on': 'no'\n    'null': '1'\n    ü: 'true'\nlog:\n  level: debug\n"
    )
