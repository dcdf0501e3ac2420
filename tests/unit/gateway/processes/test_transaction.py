"""A change of configuration in all members or in none."""

import pytest

from gateway.config.model import GatewayConfig, LogConfig
from gateway.errors import Code, ConfigError, GatewayError
from gateway.processes.transaction import Astray, commit_all, prepare_all, restore
from gateway.processes.versions import Version
from tests.support.member import RecordingMember

OLD = Version(1, GatewayConfig(), "start", 0.0, 0)
NEW = Version(2, GatewayConfig(log=LogConfig(level="debug")), "api", 1.0, 1)


def _members(count: int = 3) -> dict[str, RecordingMember]:
    return {f"process {index}": RecordingMember() for index in range(count)}


async def test_all_prepare_then_all_commit() -> None:
    """Every member runs the new version in the end."""
    members = _members()
    await prepare_all(members, NEW)
    assert all(member.config is None for member in members.values())
    await commit_all(members, NEW)
    assert [member.version for member in members.values()] == [2, 2, 2]
    assert all(member.config == NEW.config for member in members.values())


async def test_one_that_cannot_prepare_aborts_all() -> None:
    """The error names the process and says why; nobody keeps anything of the version."""
    members = _members()
    members["process 1"].fail_prepare = ConfigError("the certificate is not readable", ("server.tls.cert_file: no",))
    with pytest.raises(ConfigError) as caught:
        await prepare_all(members, NEW)
    assert "process 1 cannot run this configuration: the certificate is not readable" in caught.value.message
    assert caught.value.problems == ("server.tls.cert_file: no",)
    assert [member.calls for member in members.values()] == [["prepare 2", "abort 2"]] * 3


async def test_the_code_of_a_failed_member_is_kept() -> None:
    """A member that does not answer in time is not taken for a bad configuration."""
    members = _members(1)
    members["process 0"].fail_prepare = GatewayError(Code.OVERLOADED, "no answer within 5 s", retry_after_s=1)
    with pytest.raises(GatewayError) as caught:
        await prepare_all(members, NEW)
    assert (caught.value.code, caught.value.retry_after_s) == (Code.OVERLOADED, 1)


async def test_an_unexpected_exception_of_a_member_is_a_failure_too(caplog: pytest.LogCaptureFixture) -> None:
    """A bug in one member leaves all on the old version, and its traceback in the log."""
    members = _members()
    members["process 2"].fail_prepare = ZeroDivisionError()
    with pytest.raises(GatewayError) as caught:
        await prepare_all(members, NEW)
    assert caught.value.code is Code.INTERNAL
    assert "ZeroDivisionError" in caplog.text


async def test_restore_brings_committed_members_back() -> None:
    """After a failed commit every member runs the old version again."""
    members = _members()
    await prepare_all(members, OLD)
    await commit_all(members, OLD)
    members["process 1"].fail_commit = GatewayError(Code.INTERNAL, "no")
    await prepare_all(members, NEW)
    with pytest.raises(GatewayError, match="process 1 could not switch"):
        await commit_all(members, NEW)
    members["process 1"].fail_commit = None
    await restore(members, OLD)
    assert [member.version for member in members.values()] == [1, 1, 1]


async def test_restore_names_those_that_cannot_be_brought_back() -> None:
    """The caller hears which members to restart; the others are back."""
    members = _members()
    members["process 2"].fail_prepare = GatewayError(Code.OVERLOADED, "gone")
    with pytest.raises(Astray) as caught:
        await restore(members, OLD)
    assert caught.value.names == ("process 2",)
    assert [member.version for member in members.values()] == [1, 1, 0]
