"""What goes wrong between log and index, each fault once: afterwards the index is the log, and nothing was said twice."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import orjson
import pytest

from monitor.ship import backoff, bulk, shipper
from monitor.ship.backoff import Backoff, Breaker
from monitor.ship.bulk import Trouble
from tests.elasticsearch.fake import Answer, Fake, Request
from tests.elasticsearch.scene import Scene, disk_full

Reaction = Callable[[Fake, Request], Answer | None]


def often(reaction: Reaction, times: int = 3) -> Reaction:
    """The fault on the third bulk and the ones after it, `times` times."""
    seen = []

    def fault(server: Fake, request: Request) -> Answer | None:
        if not request.documents:
            return None
        seen.append(1)
        return reaction(server, request) if 3 <= len(seen) < 3 + times else None

    return fault


def stored(reaction: Callable[[dict[str, Any]], Answer]) -> Reaction:
    """The server has taken the documents when the fault happens."""
    return lambda server, request: reaction(server.create(request))


def body(found: dict[str, Any]) -> bytes:
    return orjson.dumps(found)


def cut_items(found: dict[str, Any]) -> Answer:
    return Answer(body=body({"errors": False, "items": found["items"][:-1]}))


def more_items(found: dict[str, Any]) -> Answer:
    return Answer(body=body({"errors": False, "items": [*found["items"], found["items"][0]]}))


def foreign(found: dict[str, Any]) -> Answer:
    items = [{"create": {"_id": f"x{place}", "status": 201}} for place in range(len(found["items"]))]
    return Answer(body=body({"errors": False, "items": items}))


def truncated(found: dict[str, Any]) -> Answer:
    return Answer(raw=b"HTTP/1.1 200 OK\r\ncontent-length: 99999\r\n\r\n" + body(found)[:300])


HTML = b"<html><body>200 all is well</body></html>"
AFTER = {
    "reset": lambda _found: Answer(reset=True),
    "timeout": lambda _found: Answer(wait_s=1.5),
    "closed without a word": lambda _found: Answer(raw=b""),
    "truncated": truncated,
    "too short": cut_items,
    "too long": more_items,
    "endless": lambda found: Answer(body=body(found) + b" " * 3_000_000),
    "foreign": foreign,
    "html": lambda _found: Answer(body=HTML, content_type="text/html"),
    "empty": lambda _found: Answer(body=b""),
    "null": lambda _found: Answer(body=b"null"),
    "no object": lambda _found: Answer(body=b'{"errors":false,"items":[1]}'),
    "502": lambda _found: Answer(502, HTML),
    "503": lambda _found: Answer(503, b""),
    "504": lambda _found: Answer(504, HTML),
}


@pytest.mark.parametrize("name", AFTER)
def test_after_the_server_accepted(name: str, fake: Fake, scene: Scene) -> None:
    fake.fault = often(stored(AFTER[name]), 1)
    scene.deliver()
    scene.exactly_once(fake.ids())
    counts = scene.counts()
    assert counts["created"] + counts["duplicate"] == 1000
    assert counts["duplicate"] > 0
    assert counts["conflict"] == 0
    assert [text for text in scene.said if text.startswith("delivering again")]


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_before_the_server_accepted(status: int, fake: Fake, scene: Scene) -> None:
    fake.fault = often(lambda _server, _request: Answer(status, HTML), 2)
    scene.deliver()
    scene.exactly_once(fake.ids())
    assert scene.counts()["created"] == 1000


def test_some_items_are_refused_for_now(fake: Fake, scene: Scene) -> None:
    def some(server: Fake, request: Request) -> Answer:
        documents, request.documents = request.documents, request.documents[::2]
        found = server.create(request)["items"]
        request.documents = documents
        error = {"type": "es_rejected_execution_exception", "reason": "queue is full"}
        items = [found.pop(0) if place % 2 == 0 else {"create": {"_id": identity, "status": 429, "error": error}}
                 for place, (identity, _) in enumerate(documents)]  # fmt: skip
        return Answer(body=body({"errors": True, "items": items}))

    fake.fault = often(some, 3)
    scene.deliver()
    scene.exactly_once(fake.ids())
    assert scene.counts()["created"] == 1000


@pytest.mark.parametrize(("status", "what"), [(401, "_bulk"), (403, "_bulk"), (401, "/")])
def test_credentials_repaired_without_a_restart(
    status: int, what: str, fake: Fake, scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    connected: list[float] = []
    scene.connect_ = scene.connect  # type: ignore[attr-defined]
    monkeypatch.setattr(scene, "connect", lambda: connected.append(1) or scene.connect_())  # type: ignore[attr-defined,func-returns-value]
    fake.fault = lambda _server, request: (
        Answer(status, b'{"error":{"type":"security_exception","reason":"no"}}') if what in request.path else None
    )
    scene.deliver(until=lambda: scene.said != [])
    assert "credentials" in scene.said[0]
    fake.fault = None
    repaired = time.monotonic()
    scene.deliver()
    assert time.monotonic() - repaired < 10
    assert len(connected) > 1  # they were read anew
    scene.exactly_once(fake.ids())


def test_a_reload_breaks_no_bulk_in_flight(fake: Fake, scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bulk whose thread has no connection yet when the credentials are read anew."""
    body = bulk.body
    monkeypatch.setattr(bulk, "body", lambda *parts: time.sleep(0.03) or body(*parts))  # type: ignore[func-returns-value]
    ship = scene.start().shipper
    assert ship is not None
    scene.deliver(until=lambda: ship.reconnect() or len(fake.ids()) == 1000)  # type: ignore[func-returns-value]
    scene.deliver()
    assert scene.said == []
    assert scene.counts()["created"] == 1000


def test_413_for_a_bulk_halves_it(fake: Fake, scene: Scene) -> None:
    fake.fault = lambda _server, request: Answer(413) if len(request.documents) > 13 else None
    scene.deliver()
    scene.exactly_once(fake.ids())
    assert scene.said == []  # that is no trouble


def test_a_bulk_has_at_most_so_many_bytes(fake: Fake, scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipper, "MOST_BYTES", 100_000)
    scene.es = replace(scene.es, batch_size=1000)
    scene.log.append(40, path="/" + "x" * 4000)
    scene.deliver()
    scene.exactly_once(fake.ids())
    sizes = [sum(len(line) + 1 for _, line in request.documents) for request in fake.bulks()]
    longest = max(map(len, scene.log.live.read_bytes().splitlines(keepends=True)))
    assert longest > 8000
    assert 100_000 <= max(sizes) < 100_000 + longest  # the line that fills it is in it


def test_bulks_shrink_while_the_server_is_slow_and_grow_again(
    fake: Fake, scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shipper, "_SLOW_S", 0.25)
    monkeypatch.setattr(shipper, "_QUICK_S", 0.2)
    scene.es = replace(scene.es, batch_size=400)
    fake.fault = lambda _server, request: time.sleep(0.3) if request.documents else None
    scene.deliver()
    scene.log.append(150)
    scene.deliver()
    fake.fault = None
    for _ in range(5):
        scene.log.append(400)
        scene.deliver()
    sizes = [len(request.documents) for request in fake.bulks()]
    assert sizes[:3] == [400, 400, 200]
    assert sizes[3:6] == [50, 50, 50]  # the least that it goes down to
    assert sizes[-1] == 400
    scene.exactly_once(fake.ids())


def test_413_for_one_document_is_a_dead_letter(fake: Fake, scene: Scene) -> None:
    poison = f"{500:012x}"
    fake.fault = lambda _server, request: (
        Answer(413) if any(poison in identity for identity, _ in request.documents) else None
    )
    scene.deliver()
    scene.exactly_once(fake.ids())
    assert [identity[-12:] for identity in scene.letters()] == [poison]
    assert scene.counts()["dead_letter"] == 1


def reject(
    wrong: Callable[[int], bool],
    kind: str = "document_parsing_exception",
    status: int = 400,
    reason: str = "failed to parse",
) -> Reaction:
    def fault(server: Fake, request: Request) -> Answer | None:
        if not request.documents:
            return None
        documents = request.documents
        bad = {identity for identity, _ in documents if wrong(int(identity[-12:], 16))}
        request.documents = [one for one in documents if one[0] not in bad]
        good = {item["create"]["_id"]: item for item in server.create(request)["items"]}
        request.documents = documents
        error = {"type": kind, "reason": reason}
        items = [
            good.get(identity) or {"create": {"_id": identity, "status": status, "error": error}}
            for identity, _ in documents
        ]
        return Answer(body=body({"errors": bool(bad), "items": items}))

    return fault


def test_a_rejected_document_is_a_dead_letter_and_the_rest_goes_on(fake: Fake, scene: Scene) -> None:
    fake.fault = reject(lambda number: number in (17, 400))
    scene.deliver()
    scene.exactly_once(fake.ids())
    assert [int(identity[-12:], 16) for identity in scene.letters()] == [17, 400]
    assert scene.counts()["dead_letter"] == 2


def test_a_kill_between_dead_letter_and_checkpoint_does_not_double_it(fake: Fake, scene: Scene) -> None:
    fake.fault = reject(lambda number: number == 17)
    scene.deliver(until=lambda: scene.letters() != [])
    scene.drop()
    (scene.ship_dir / "checkpoint").unlink()
    scene.deliver()
    scene.exactly_once(fake.ids())
    assert len(scene.letters()) == 1


@pytest.mark.parametrize("wrong", [lambda number: number > 300, lambda number: number > 1000 and number % 50 == 0])
def test_when_rejections_are_the_rule_it_pauses(wrong: Callable[[int], bool], fake: Fake, scene: Scene) -> None:
    scene.log.append(2000)
    fake.fault = reject(wrong)
    scene.deliver(until=lambda: any("as a rule" in text for text in scene.said))
    before = len(scene.letters())
    assert before < 200
    time.sleep(0.4)
    scene.deliver(until=lambda: scene.runner.shipper.counts.retries >= 2)  # type: ignore[union-attr]
    assert len(scene.letters()) == before  # it waits
    fake.fault = None  # the mapping was repaired
    scene.deliver()
    scene.exactly_once(fake.ids())


def test_rejections_are_let_pass_when_told_so(fake: Fake, scene: Scene) -> None:
    fake.fault = reject(lambda number: 300 < number <= 550)
    scene.deliver(until=lambda: any("as a rule" in text for text in scene.said))
    deadline = time.monotonic() + 20
    while len(fake.ids()) < 750 and time.monotonic() < deadline:
        scene.runner.shipper.reconnect()  # type: ignore[union-attr]
        scene.deliver(
            until=lambda: scene.runner.shipper.backoff.trouble is None or scene.runner.shipper.backoff.waiting
        )  # type: ignore[union-attr]
    scene.deliver()
    scene.exactly_once(fake.ids())
    assert len(scene.letters()) == 250


@pytest.mark.parametrize(
    ("kind", "status", "reason"),
    [
        ("cluster_block_exception", 403, "index [x] blocked by: [FORBIDDEN/8/index write (api)];"),
        (
            "cluster_block_exception",
            429,
            "index [x] blocked by: [TOO_MANY_REQUESTS/12/disk usage exceeded flood-stage watermark",
        ),
        ("illegal_argument_exception", 400, "Number of documents in the index can't exceed [2147483519]"),
        (
            "validation_exception",
            400,
            "this action would add [2] shards, but this cluster currently has [1000]/[1000] maximum",
        ),
        ("index_not_found_exception", 404, "no such index [x] and [action.auto_create_index] is [false]"),
        ("security_exception", 403, "action [indices:data/write/bulk] is unauthorized"),
    ],
)
def test_what_is_wrong_with_the_index_pauses_and_is_never_a_dead_letter(
    kind: str, status: int, reason: str, fake: Fake, scene: Scene
) -> None:
    # some of a bulk only: whole bulks would be stopped by the breaker, too
    fake.fault = reject(lambda number: number > 200 and number % 7 == 0, kind, status, reason)
    scene.deliver(until=lambda: scene.said != [])
    time.sleep(0.4)
    scene.deliver(until=lambda: scene.runner.shipper.backoff.tries >= 2)  # type: ignore[union-attr]
    assert scene.runner.status()["state"] == "paused"  # type: ignore[union-attr]
    assert scene.letters() == []
    fake.fault = None
    scene.deliver()
    scene.exactly_once(fake.ids())
    assert len([text for text in scene.said if text.startswith("not delivering")]) == 1  # told once, not at each try


def test_no_template_nothing_is_sent(fake: Fake, scene: Scene) -> None:
    fake.template = None
    scene.deliver(until=lambda: scene.said != [])
    assert "setup-elasticsearch" in scene.said[0]
    assert fake.bulks() == []
    fake.template = {"ebpf_monitor": {"schema": 999}}
    scene.deliver(until=lambda: "format 999" in str(scene.runner.status()["reason"]))  # type: ignore[union-attr]
    fake.template = {"ebpf_monitor": {"schema": 1}}
    scene.deliver()
    scene.exactly_once(fake.ids())


def test_disk_full_at_the_dead_letters(fake: Fake, scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    fake.fault = reject(lambda number: number == 500)
    with monkeypatch.context() as patch:
        patch.setattr("monitor.ship.deadletters.os.fsync", disk_full)
        scene.deliver(until=lambda: scene.said != [])
    assert "cannot write dead-letter.jsonl: No space left" in scene.said[0]
    scene.deliver()
    scene.exactly_once(fake.ids())
    assert len(scene.letters()) == 1


# ---- a server that is away ----


def test_an_outage(fake: Fake, scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backoff, "LEAST_S", 1.0)
    scene.deliver(until=lambda: len(fake.ids()) >= 300)
    fake.fault = lambda _server, _request: Answer(reset=True)
    fake.down()
    scene.log.append(3000)
    scene.deliver(until=lambda: scene.said != [])
    away = time.monotonic()
    ship = scene.runner.shipper  # type: ignore[union-attr]
    assert ship is not None
    # connections that were open end one after the other, then none can be made
    scene.deliver(until=lambda: time.monotonic() - away > 2.5 and ship.backoff.trouble.unreachable)  # type: ignore[union-attr]
    status = scene.runner.status()  # type: ignore[union-attr]
    assert status["state"] == "waiting"
    assert "cannot connect" in status["reason"]
    lasted = time.monotonic() - away
    assert lasted - 0.5 < time.time() - status["since"] < lasted + 3
    assert status["tries"] <= lasted + 2  # at most one a second
    assert status["lag"]["events"] > 2000
    ship.backoff.retry_at = time.monotonic() + 60  # as after a long outage
    fake.fault = None
    fake.up()
    repaired = time.monotonic()
    scene.deliver(until=lambda: len(fake.ids()) > 1000)
    assert time.monotonic() - repaired < 10
    scene.deliver()
    scene.exactly_once(fake.ids())
    assert scene.runner is None


def test_the_pauses_between_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("monitor.ship.backoff.time.monotonic", lambda: clock[0])
    gone = Trouble("connect", "gone", wait=True, unreachable=True)
    longest = [0.0] * 12
    for _ in range(300):
        backoff = Backoff()
        for at in range(12):
            backoff.fail(gone)
            delay = backoff.retry_at - clock[0]
            assert 1.0 <= delay <= min(60.0, max(1.0, 2.0 ** (at + 1)))
            longest[at] = max(longest[at], delay)
    assert longest[11] > 50
    assert longest[2] < 8.01
    paused = Backoff()
    paused.fail(Trouble("credentials", "no", wait=False))
    assert paused.retry_at == 5.0


def test_the_breaker() -> None:
    breaker = Breaker()
    assert not any(breaker.add(499, 1) for _ in range(1000))  # 0.2 %
    assert not Breaker().add(10, 90)  # few documents, and not in a row
    assert Breaker().add(0, 100)
    breaker = Breaker()
    assert [breaker.add(490, 10) for _ in range(3)] == [False, True, True]


def test_a_new_configuration_while_it_runs(fake: Fake, scene: Scene) -> None:
    other = Fake()
    try:
        scene.deliver()
        scene.es = replace(scene.es, es_port=other.port, batch_size=7)
        scene.runner.configure(scene.config)  # type: ignore[union-attr]
        scene.log.append(100)
        scene.deliver()
        assert len(fake.ids()) == 1000
        assert len(other.ids()) == 100
        assert max(len(request.documents) for request in other.bulks()) == 7
        scene.exactly_once(fake.ids() + other.ids())
    finally:
        other.down()
