"""Secrets in arguments: 200 command lines with, 200 without; raw records; time that is linear in what a caller writes."""

from __future__ import annotations

import base64
import shlex
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from monitor import decode, events
from monitor.redact import Redactor
from tests.fakes import Bench, control, facts
from tests.secrets_examples import MARKED, WITH, WITHOUT, arguments


def test_there_are_two_hundred_of_each() -> None:
    assert len(set(WITH)) >= 200
    assert len(set(WITHOUT)) >= 200


@pytest.mark.parametrize("line", WITH)
def test_the_secret_is_masked_and_nothing_else(line: str) -> None:
    assert MARKED.findall(line), "the example marks nothing"
    given, expected = arguments(line)
    assert Redactor().arguments(given) == expected


@pytest.mark.parametrize("line", WITHOUT)
def test_what_is_no_secret_stands(line: str) -> None:
    given = [word.encode() for word in shlex.split(line)]
    assert Redactor().arguments(given) is None


# ---- own patterns, cut arguments ----------------------------------------------------------------------------------------
def test_own_patterns_mask_their_group_or_the_whole_match() -> None:
    redactor = Redactor([r"employee=(\d+)", r"ACME-[0-9]{4}"])
    assert redactor.arguments([b"app", b"--employee=1234x", b"see ACME-0042 now"]) == [
        b"app",
        b"--employee=[redacted]x",
        b"see [redacted] now",
    ]
    assert redactor.arguments([b"app", b"--employee=none"]) is None


def test_a_password_that_was_cut_before_its_end_is_masked() -> None:
    given = [b"git", b"clone", b"https://joe:hunt"]
    assert Redactor().arguments(given) is None
    assert Redactor().arguments(given, cut=True) == [b"git", b"clone", b"https://joe:[redacted]"]
    assert Redactor().arguments([b"x", b"http://host:8080"], cut=True) is None
    assert Redactor().block(b"x\0--password=hun", cut=True) == b"x\0--password=[redacted]"


@given(st.lists(st.binary(max_size=80).filter(lambda raw: b"\0" not in raw), min_size=1, max_size=8))
@example([b"app", b"-p", b"--password", b"'", b'"', b"\\"])
def test_any_bytes_are_taken_and_nothing_but_their_number_is_promised(arguments: list[bytes]) -> None:
    found = Redactor().arguments(arguments)
    assert found is None or (len(found) == len(arguments) and found != arguments)


@given(
    st.text("ab -='\"\\:@/{}&;,|\n", max_size=60),
    st.sampled_from([b"--password=%s", b"x --token=%s y", b"TOKEN=%s", b"https://u:%s@h/"]),
)
def test_masking_twice_is_masking_once(value: str, form: bytes) -> None:
    once = Redactor().arguments([b"app", form % value.encode()])
    if once is not None:
        assert Redactor().arguments(once) is None


# ---- records ------------------------------------------------------------------------------------------------------------
def _exec(arguments: bytes, **members: int) -> bytes:
    blobs = {"executable": b"x\0", "args": arguments, "cgroup": b"c\0"}
    return control("process_exec", blobs, **(facts() | members))


def test_a_record_is_masked_in_place_and_flagged() -> None:
    raw = _exec(b"mysql\0-phunter2\0db\0")
    masked = Redactor().record(raw)
    before, after = decode.control(raw), decode.control(masked)
    assert b"hunter2" not in masked
    assert after.blobs == before.blobs | {"args": b"mysql\0-p[redacted]\0db\0"}
    changed = {name for name, value in after.values.items() if value != before.values[name]}
    assert changed - {"length"} == {"kf"}
    assert after.values["kf"] == before.values["kf"] | events.REDACTED
    assert Redactor().record(masked) == masked


def test_other_records_and_harmless_arguments_stand_as_they_are() -> None:
    for raw in (
        _exec(b"ls\0-la\0"),
        control("process_exit", {"executable": b"--password=x\0"}, **facts()),
        b"",
        b"\1\2",
    ):
        assert Redactor().record(raw) is raw


def test_a_record_that_cannot_be_read_keeps_no_byte_of_its_parts() -> None:
    raw = bytearray(_exec(b"app\0--password=hunter2\0"))
    raw[events.CONTROL.size + 4 : events.CONTROL.size + 8] = (1 << 20).to_bytes(4, "little")
    screened = Redactor().record(bytes(raw))
    assert b"hunter2" not in screened
    with pytest.raises(decode.DecodeError):
        decode.control(screened)


def test_masked_arguments_are_flagged_counted_and_not_in_raw() -> None:
    bench = Bench()
    bench.order.screen = Redactor().record
    bench.kernel.control(0, "process_exec", {"args": b"mysql\0-p\xffhunter2\0\xfe\0"}, **facts())
    bench.kernel.control(0, "process_exec", {"args": b"ls\0"}, **facts())
    masked, plain = bench.documents()
    assert masked["ebpf"]["redacted"] is True
    assert masked["process"]["command_line"] == r"mysql -p[redacted] \xfe"
    assert base64.b64decode(masked["ebpf"]["raw"]["process_args"]) == b"mysql\0-p[redacted]\0\xfe\0"
    assert "redacted" not in plain["ebpf"]
    assert bench.ledger.balance()["redacted"] == 1


# ---- time ---------------------------------------------------------------------------------------------------------------
HOSTILE = [
    *(
        b"://a:",
        b"://",
        b"a:",
        b"password=",
        b"--password ",
        b"eyJ.",
        b"eyJ-",
        b"'",
        b'"',
        b"\\",
        b"x-",
        b"Authorization:",
        b'secret"',
        b"gh",
        b"ghp_",
    ),
    *(
        b"-----BEGIN ",
        b"@",
        b"token = ",
        b"mysql ",
        b"'\"",
        b"$(",
        b"a=",
        b"AAAAAAAAAAAAAA.",
        b"\xff",
        b"pass:",
        b"&sig=",
        b'{"token":',
        b"(",
        b"x-token",
        b"1//0",
    ),
]


@pytest.mark.parametrize("part", HOSTILE, ids=repr)
def test_the_time_is_linear_in_what_a_caller_writes(part: bytes) -> None:
    # A quadratic rule takes sixteen times as long for four times the length; half of that is the limit.
    redactor = Redactor()

    def cost(size: int) -> float:
        given = [b"sh", b"-c", (part * size)[:size], b"--token"]
        best = 1.0
        for _ in range(5):
            started = time.process_time()
            redactor.arguments(given)
            best = min(best, time.process_time() - started)
        return best

    long = cost(16384)
    assert long < 0.02 or long < 8 * cost(4096)
