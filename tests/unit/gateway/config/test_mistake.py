import pytest

from gateway.config.mistake import MAX_IN_MESSAGE, Mistake, Path, dotted, to_error


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ((), ""),
        (("server", "port"), "server.port"),
        (("workers", 1, "health", "path"), "workers[1].health.path"),
        (("models", 0, "aliases", 2), "models[0].aliases[2]"),
        (("admission", "tenants", "a.b", "tokens_per_minute"), "admission.tenants.a.b.tokens_per_minute"),
    ],
)
def test_a_path_is_written_as_people_do(path: Path, text: str) -> None:
    """Keys are joined by dots, positions stand in brackets."""
    assert dotted(path) == text


def test_a_mistake_says_where_what_and_why() -> None:
    """Origin, path and message are joined; one without a path leaves it out."""
    assert str(Mistake("smg.yaml:12", ("workers", 1, "url"), "is empty")) == "smg.yaml:12: workers[1].url: is empty"
    assert str(Mistake("smg.yaml", (), "no such file")) == "smg.yaml: no such file"


def test_the_error_names_every_mistake_once() -> None:
    """Problems hold all of them without repetitions, the message counts them."""
    error = to_error([Mistake("f:1", ("a",), "x"), Mistake("f:1", ("a",), "x"), Mistake("f:2", ("b",), "y")])
    assert error.problems == ("f:1: a: x", "f:2: b: y")
    assert error.message == "the configuration has 2 mistakes: f:1: a: x; f:2: b: y"


def test_the_message_of_the_error_is_bounded() -> None:
    """A message names ten mistakes and counts the rest."""
    error = to_error(Mistake(f"f:{line}", ("a",), "x") for line in range(1, 15))
    assert len(error.problems) == 14
    assert error.message.count("f:") == MAX_IN_MESSAGE
    assert error.message.endswith("; and 4 more")
