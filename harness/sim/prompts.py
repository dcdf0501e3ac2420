"""What a request asks for: the prompt text, the tools to call, the schema to fill, in any client dialect."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson

from harness.sim import tokens
from harness.sim.job import Api, Tool
from harness.sim.refusal import Refusal

JSON_OBJECT = {"type": "object", "properties": {"simulated": {"type": "boolean"}}, "required": ["simulated"]}


@dataclass(frozen=True, slots=True)
class Plan:
    """What is asked, independent of the dialect."""

    prompts: list[str]
    """The prompts, through the toy chat template where there are messages; at least one."""
    last_user: str
    """What the user said last."""
    tools: tuple[Tool, ...]
    calls: tuple[Tool, ...]
    """The tools that will be called."""
    named: bool
    schema: Any


def read(api: Api, body: dict[str, Any]) -> Plan:
    """Read a request body.

    Raises:
        Refusal: when a needed field is missing or of a wrong type.
    """
    match api:
        case Api.CHAT:
            return _chat(body)
        case Api.MESSAGES:
            return _messages(body)
        case Api.RESPONSES:
            return _responses(body)
        case Api.COMPLETIONS | Api.POOL:
            return _plain(_prompts(body, "prompt"), _schema(body))
        case Api.GENERATE:
            found = _prompts(body, "text") if body.get("text") is not None else _prompts(body, "input_ids")
            sampling = body.get("sampling_params") or {}
            wanted = sampling.get("json_schema")
            return _plain(found, orjson.loads(wanted) if isinstance(wanted, str) else wanted)


def _plain(found: list[str], schema: Any) -> Plan:
    return Plan(found, found[-1], (), (), False, schema)


def _prompts(body: dict[str, Any], name: str) -> list[str]:
    value = body.get(name)
    if value is None:
        raise Refusal.missing(name)
    found = tokens.texts(value)
    if found is None:
        raise Refusal.invalid(name, "Input should be a valid string or list")
    return found


def _chat(body: dict[str, Any]) -> Plan:
    messages = _list(body, "messages")
    offered = tuple(Tool(t["function"]["name"], t["function"].get("parameters")) for t in body.get("tools") or () if _is_function(t))
    choice = body.get("tool_choice")
    name = choice.get("function", {}).get("name") if isinstance(choice, dict) else None
    mode = "named" if name else choice if isinstance(choice, str) else "auto"
    last_role, last_user = _last(messages)
    calls = _calls(offered, mode, name, last_user if last_role == "user" else "", bool(body.get("parallel_tool_calls", True)))
    return Plan([_template(messages, body.get("tools"))], last_user, offered, calls, mode == "named", _schema(body))


def _messages(body: dict[str, Any]) -> Plan:
    messages = _list(body, "messages")
    offered = tuple(Tool(t["name"], t.get("input_schema")) for t in body.get("tools") or () if _is_named(t))
    choice = body.get("tool_choice") or {}
    mode = {"any": "required", "tool": "named", "none": "none"}.get(choice.get("type", "auto"), "auto")
    last_role, last_user = _last(messages)
    system = body.get("system")
    whole = ([{"role": "system", "content": system}] if system else []) + messages
    calls = _calls(offered, mode, choice.get("name"), last_user if last_role == "user" else "", parallel=True)
    return Plan([_template(whole, body.get("tools"))], last_user, offered, calls, mode == "named", None)


def _responses(body: dict[str, Any]) -> Plan:
    asked = body.get("input")
    if asked is None:
        raise Refusal.missing("input")
    messages = [{"role": "user", "content": asked}] if isinstance(asked, str) else asked
    if not isinstance(messages, list) or not messages or not all(isinstance(item, dict) for item in messages):
        raise Refusal.invalid("input", "Input should be a valid string or list")
    if body.get("instructions"):
        messages = [{"role": "system", "content": body["instructions"]}, *messages]
    offered = tuple(Tool(t["name"], t.get("parameters")) for t in body.get("tools") or () if _is_named(t) and t.get("type") == "function")
    choice = body.get("tool_choice")
    name = choice.get("name") if isinstance(choice, dict) else None
    mode = "named" if name else choice if isinstance(choice, str) else "auto"
    last_role, last_user = _last(messages)
    calls = _calls(offered, mode, name, last_user if last_role == "user" else "", bool(body.get("parallel_tool_calls", True)))
    wanted = (body.get("text") or {}).get("format") or {}
    schema = wanted.get("schema") if wanted.get("type") == "json_schema" else JSON_OBJECT if wanted.get("type") == "json_object" else None
    return Plan([_template(messages, body.get("tools"))], last_user, offered, calls, mode == "named", schema)


def _is_function(tool: Any) -> bool:
    return isinstance(tool, dict) and _is_named(tool.get("function"))


def _is_named(tool: Any) -> bool:
    return isinstance(tool, dict) and isinstance(tool.get("name"), str)


def _list(body: dict[str, Any], name: str) -> list[dict[str, Any]]:
    value = body.get(name)
    if value is None:
        raise Refusal.missing(name)
    if not isinstance(value, list) or not value or not all(isinstance(item, dict) for item in value):
        raise Refusal.invalid(name, "Input should be a valid list")
    return value


def _calls(offered: tuple[Tool, ...], mode: str, name: str | None, said: str, parallel: bool) -> tuple[Tool, ...]:
    if mode == "none":
        return ()
    if mode == "named":
        for tool in offered:
            if tool.name == name:
                return (tool,)
        raise Refusal(
            400, "BadRequestError", f"The tool specified in `tool_choice` ({name}) does not match any of the `tools`.", "tool_choice"
        )
    low = said.lower()
    asked = tuple(tool for tool in offered if tool.name.lower() in low or tool.name.lower().replace("_", " ") in low)
    if mode == "required":
        if not offered:
            raise Refusal(400, "BadRequestError", "`tool_choice` is required but no `tools` were given.", "tool_choice")
        asked = asked or offered[:1]
    return asked if parallel else asked[:1]


def _schema(body: dict[str, Any]) -> Any:
    wanted = body.get("response_format") or {}
    if wanted.get("type") == "json_schema":
        return (wanted.get("json_schema") or {}).get("schema", JSON_OBJECT)
    if wanted.get("type") == "json_object":
        return JSON_OBJECT
    outputs = body.get("structured_outputs") or {}
    return outputs.get("json", body.get("guided_json"))


def _last(messages: list[dict[str, Any]]) -> tuple[str, str]:
    role = str(messages[-1].get("role", messages[-1].get("type", "")))
    for message in reversed(messages):
        if message.get("role") == "user":
            content = message.get("content")
            if isinstance(content, list) and any(isinstance(part, dict) and part.get("type") == "tool_result" for part in content):
                return "tool", ""
            return role, _content(content)
    return role, ""


def _template(messages: list[dict[str, Any]], tools: Any) -> str:
    head = f"<|im_start|>tools\n{orjson.dumps(tools).decode()}<|im_end|>\n" if tools else ""
    turns = [f"<|im_start|>{message.get('role', message.get('type', ''))}\n{_turn(message)}<|im_end|>\n" for message in messages]
    return head + "".join(turns) + "<|im_start|>assistant\n"


def _turn(message: dict[str, Any]) -> str:
    if message.get("tool_calls"):
        return _content(message.get("content")) + orjson.dumps(message["tool_calls"]).decode()
    if "content" not in message:
        return orjson.dumps(message).decode()
    return _content(message.get("content"))


def _content(content: Any) -> str:
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "\n".join(_piece(part) for part in content)
    return ""


def _piece(part: Any) -> str:
    if not isinstance(part, dict):
        return str(part)
    if isinstance(part.get("text"), str):
        return str(part["text"])
    if part.get("type") in ("image_url", "image", "input_image"):
        return "<image>" * 16
    return orjson.dumps(part).decode()
