import pathlib

import pytest

from harness.bench.report import Comparison, Machine, Measurement, cpu_model, markdown, median, ratio, rows_of, shown, table


def measured(name: str, cpu_us: float | None, case: str = "chat64", **more: object) -> Measurement:
    """One round."""
    fields = {"requests": 10, "errors": 0, "rps": 100.0, "p50_ms": 1.0, "p99_ms": 2.0, "resident_bytes": 50_000_000, **more}
    return Measurement(case=case, name=name, cpu_us=cpu_us, **fields)  # type: ignore[arg-type]


def comparison(*rounds: Measurement, against: tuple[str, ...] = ("nginx", "smg")) -> Comparison:
    """A comparison of these rounds."""
    return Comparison(
        date="2026-01-02",
        machine=Machine(cpu="A CPU", cores=2, system="Linux 6.1", python="3.11.7"),
        generator="wrk",
        placement="not pinned",
        processes=1,
        rounds=3,
        seconds=5.0,
        versions={"nginx": "1.22.1", "smgctl": ""},
        rows=rows_of(rounds, against),
        notices=[],
    )


@pytest.mark.parametrize(
    ("values", "expected"), [([3.0, 1.0, 2.0], 2.0), ([1.0, 2.0], 1.5), ([None, 4.0], 4.0), ([None], None), ([], None)]
)
def test_the_median_is_of_what_is_there(values: list[float | None], expected: float | None) -> None:
    """Rounds without a figure do not count as nought."""
    assert median(values) == expected


@pytest.mark.parametrize(("one", "other", "expected"), [(36.0, 24.0, 1.5), (None, 2.0, None), (2.0, None, None), (2.0, 0.0, None)])
def test_a_ratio_needs_both(one: float | None, other: float | None, expected: float | None) -> None:
    """What cannot be divided has no ratio."""
    assert ratio(one, other) == expected


def test_rounds_become_rows() -> None:
    """Medians of what varies, most memory, all errors and requests; ratios are of medians, within a case."""
    rows = rows_of(
        [
            measured("nginx", 20.0),
            measured("smgctl", 30.0, rps=10.0, p50_ms=5.0, errors=1, resident_bytes=40_000_000),
            measured("nginx", 30.0),
            measured("smgctl", 90.0, rps=30.0, p50_ms=None, errors=2, resident_bytes=60_000_000),
            measured("nginx", 22.0),
            measured("smgctl", 33.0, rps=20.0, p50_ms=7.0),
            measured("smgctl", 50.0, case="chat1"),
        ],
        ("nginx", "smg"),
    )
    assert [(row.case, row.name, row.cpu_us) for row in rows] == [
        ("chat64", "nginx", 22.0),
        ("chat64", "smgctl", 33.0),
        ("chat1", "smgctl", 50.0),
    ]
    ours = rows[1]
    assert ours.times == {"nginx": 1.5, "smg": None}
    assert (ours.rps, ours.p50_ms, ours.resident_mb, ours.errors, ours.requests) == (20.0, 6.0, 60.0, 3, 30)
    assert ours.cpu_us_rounds == [30.0, 90.0, 33.0]
    assert rows[2].times == {"nginx": None, "smg": None}, "nginx took no part in chat1"


def test_errors_are_counted_by_contestant() -> None:
    """Those of others are theirs."""
    found = comparison(measured("nginx", 1.0, errors=5), measured("smgctl", 1.0, errors=1), measured("smgctl", 1.0, case="chat1", errors=2))
    assert (found.errors_of("smgctl"), found.errors_of("nginx")) == (3, 5)


def test_the_table_has_columns_for_those_who_took_part() -> None:
    """No column is empty for want of a contestant; a missing figure is a dash."""
    columns, rows = table(
        comparison(measured("nginx", 20.0), measured("smgctl", 30.0), measured("smgctl", None, case="chat1", p99_ms=None))
    )
    assert columns == ["case", "gateway", "cpu us", "x nginx", "req/s", "p50 ms", "p99 ms", "MB", "errors"]
    assert rows == [
        ["chat64", "nginx", "20.0", "1.00", "100", "1.00", "2.00", "50", "0"],
        ["chat64", "smgctl", "30.0", "1.50", "100", "1.00", "2.00", "50", "0"],
        ["chat1", "smgctl", "-", "-", "100", "1.00", "-", "50", "0"],
    ]


def test_a_table_of_nothing_is_empty() -> None:
    """No row, no failure."""
    assert table(comparison())[1] == []


def test_markdown_says_how_it_was_measured() -> None:
    """Date, command, machine and versions stand above a table that is one."""
    lines = markdown(comparison(measured("nginx", 20.0), measured("smgctl", 30.0)), "smgctl bench").splitlines()
    assert lines[:3] == [
        "Measured on 2026-01-02 with `smgctl bench`: 3 rounds of 5 s, medians.",
        "Machine: A CPU, 2 cores, Linux 6.1, Python 3.11.7; not pinned; load by wrk.",
        "Versions: nginx 1.22.1, smgctl.",
    ]
    heading, rule, *rows = lines[4:]
    assert {line.count("|") for line in (heading, rule, *rows)} == {10}
    assert rows[1] == "| chat64 | smgctl | 30.0 | 1.50 | 100 | 1.00 | 2.00 | 50 | 0 |"


def test_a_number_that_is_not_there_is_a_dash() -> None:
    """Digits are kept."""
    assert (shown(None, 1), shown(1.25, 1), shown(12.0, 0)) == ("-", "1.2", "12")


def test_the_processor_is_named(tmp_path: pathlib.Path) -> None:
    """By its model, else by its architecture."""
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nmodel name\t: A CPU @ 3 GHz\n")
    assert cpu_model(tmp_path / "cpuinfo") == "A CPU @ 3 GHz"
    assert cpu_model(tmp_path / "none")
