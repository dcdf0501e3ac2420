import json

from gateway.config.schema import json_schema
from tests.support.cli import Smgctl


def test_the_schema_is_printed(smgctl: Smgctl) -> None:
    """What editors read is the schema of the configuration, whole."""
    result = smgctl("config", "schema")
    assert (result.exit_code, result.errors) == (0, "")
    assert json.loads(result.output) == json_schema()
