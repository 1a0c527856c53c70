# SPDX-License-Identifier: Apache-2.0
"""The client against a server that does everything wrong, one thing at a time. Loopback only; no time is asserted."""

from __future__ import annotations

import asyncio
import datetime
import errno
import ipaddress
import itertools
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from support.fake_openai_server import Behaviour, FakeServer

from ansible.module_utils.rackwright import serving_client
from ansible.module_utils.rackwright.errors import MissingError
from ansible.module_utils.rackwright.serving_answer import Answer
from ansible.module_utils.rackwright.serving_client import Client, tls_context
from ansible.module_utils.rackwright.serving_http import Address, parse_address
from ansible.module_utils.rackwright.serving_load import Load, Offered, Query, offer, warm_up
from ansible.module_utils.rackwright.serving_prompts import Prompt, random_prompts

BODY = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream_options": {"include_usage": True}}
QUERY = Query(True, "m", 4, True)


def ask(
    server: FakeServer | str, path: str = "/chat/completions", times: int = 1, timeout: float = 5.0, **more: Any
) -> list[Answer]:
    """Ask one after the other with one client."""

    async def run() -> list[Answer]:
        address = parse_address(server if isinstance(server, str) else server.url)
        client = Client(address, more.get("api_key"), more.get("tls"), timeout)
        answers = [await client.ask(path, BODY) for _ in range(times)]
        client.close()
        return answers

    return asyncio.run(run())


def always(how: Behaviour) -> Callable[[int, dict[str, Any]], Behaviour]:
    return lambda number, body: how


@pytest.mark.parametrize("stutter", [0, 1, 7])
@pytest.mark.parametrize("path", ["/chat/completions", "/completions"])
def test_every_token_is_seen_once_however_the_bytes_are_divided(path: str, stutter: int) -> None:
    with FakeServer(always(Behaviour(tokens=5, stutter=stutter))) as server:
        (answer,) = ask(server, path)

    assert answer.error is None
    assert len(answer.token_s) == 5
    assert answer.token_s == sorted(answer.token_s)
    assert answer.usage["completion_tokens"] == 5
    assert answer.finish_reason == "length"


@pytest.mark.parametrize(
    ("how", "kind", "detail"),
    [
        (Behaviour(status=500), "http_status", "500 Unhappy: out of luck"),
        (Behaviour(status=429, message="slow down"), "http_status", "429 Unhappy: slow down"),
        (Behaviour(drop_after=2), "broken_stream", "stopped after 2 pieces: the connection was closed"),
        (Behaviour(drop_after=0), "broken_stream", "stopped after 0 pieces"),
        (Behaviour(finish=False, done=False), "broken_stream", "stopped after 4 pieces: the server ended it"),
        (Behaviour(raw=b"data: {nonsense\n\n"), "broken_stream", "no JSON object"),
        (Behaviour(raw=b"complete nonsense"), "broken_stream", "stopped after 0 pieces"),
        (Behaviour(raw=b""), "broken_stream", "stopped after 0 pieces"),
        (Behaviour(tokens=0), "no_tokens", "without a token (length)"),
        (Behaviour(error_after=1, message="engine died"), "server_error", "engine died"),
        (Behaviour(content_type="application/json", raw=b"{}"), "not_streamed", "application/json"),
    ],
)
def test_each_failure_has_its_class(how: Behaviour, kind: str, detail: str) -> None:
    with FakeServer(always(how)) as server:
        (answer,) = ask(server)

    assert answer.error == kind
    assert detail in answer.detail


@pytest.mark.parametrize("hang_after", [-1, 0, 2])
def test_a_server_that_hangs_is_left_after_the_time_limit(hang_after: int) -> None:
    with FakeServer(always(Behaviour(hang_after=hang_after))) as server:
        (answer,) = ask(server, timeout=0.2)

    assert answer.error == "timeout"
    assert f"within 0.2 s, {max(0, hang_after)} pieces came" in answer.detail


def test_nothing_listening_is_refused() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        (answer,) = ask(f"http://127.0.0.1:{unused.getsockname()[1]}")

    assert (answer.error, answer.detail) == ("refused", "Connection refused")


def test_a_name_that_is_none_is_unresolved() -> None:
    (answer,) = ask("http://no-such-host.invalid:8000")

    assert answer.error == "unresolved"


@pytest.mark.parametrize(
    ("number", "kind", "words"),
    [
        (errno.EMFILE, "client", "Too many open files"),
        (errno.EHOSTUNREACH, "unreachable", "No route to host"),
        (errno.ETIMEDOUT, "timeout", "Connection timed out"),
        (errno.ECONNRESET, "broken_stream", "Connection reset by peer"),
    ],
)
def test_what_the_system_says_of_a_connection_has_its_class(
    number: int, kind: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(self: Client) -> None:
        raise OSError(number, "Connect call failed ('127.0.0.1', 1)")

    monkeypatch.setattr(serving_client.Client, "_open", fail)
    (answer,) = ask("http://127.0.0.1:1")

    assert (answer.error, answer.detail) == (kind, words)


def test_one_connection_serves_many_requests() -> None:
    with FakeServer() as server:
        answers = ask(server, times=5)

    assert [answer.error for answer in answers] == [None] * 5
    assert server.connections == 1


def test_a_connection_the_server_closes_is_opened_again() -> None:
    with FakeServer(always(Behaviour(close=True))) as server:
        answers = ask(server, times=3)

    assert [answer.error for answer in answers] == [None] * 3
    assert server.connections == 3


def test_an_idle_connection_that_was_closed_behind_our_back_is_no_failure() -> None:
    with FakeServer(lambda number, body: Behaviour(close=True, sneaky=True)) as server:
        answers = ask(server, times=3)

    assert [answer.error for answer in answers] == [None] * 3
    assert len(server.asked) == 3


def test_a_connection_that_ends_under_a_request_is_tried_again_once_and_only_when_it_was_idle() -> None:
    def plan(number: int, body: dict[str, Any]) -> Behaviour:
        return [Behaviour(), Behaviour(vanish=True), Behaviour(), Behaviour(drop_after=1)][number]

    with FakeServer(plan) as server:
        answers = ask(server, times=3)
    assert [answer.error for answer in answers] == [None, None, "broken_stream"]
    assert len(server.asked) == 4, "half an answer is a failure, not a reason to ask again"

    with FakeServer(always(Behaviour(vanish=True))) as server:
        (answer,) = ask(server)
    assert (answer.error, answer.detail) == ("broken_stream", "the connection ended unanswered")
    assert len(server.asked) == 1


def test_the_key_is_sent_and_never_shown() -> None:
    with FakeServer(always(Behaviour(status=401, message="bad key s3cret-key"))) as server:
        (answer,) = ask(server, api_key="s3cret-key")

    assert server.asked[0].headers["authorization"] == "Bearer s3cret-key"
    assert answer.detail == "401 Unhappy: bad key ***"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for 127.0.0.1 that signs itself, with its key, and beside it (``.crt``) the certificate alone."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "fake")])
    now = datetime.datetime.now(datetime.timezone.utc)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "server.pem"
    text = signed.public_bytes(serialization.Encoding.PEM)
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(secret + text)
    Path(f"{path}.crt").write_bytes(text)
    return path


def test_tls_is_checked_against_the_authority_that_is_named(certificate: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with FakeServer(tls=context) as server:
        kinds = [
            ask(server, tls=tls)[0].error
            for tls in (tls_context(True, None), tls_context(True, f"{certificate}.crt"), tls_context(False, None))
        ]

    assert kinds == ["tls", None, None]


def test_tls_against_a_server_without_it_and_the_other_way_round(certificate: Path) -> None:
    with FakeServer() as server:
        (answer,) = ask(server.url.replace("http:", "https:"), tls=tls_context(False, None))
    assert answer.error == "tls"

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with FakeServer(tls=context) as server:
        (answer,) = ask(server.url.replace("https:", "http:"))
    assert answer.error == "broken_stream"


def test_an_authority_that_cannot_be_read_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "empty.pem").write_text("")
    for path in (tmp_path / "none.pem", tmp_path / "empty.pem"):
        with pytest.raises(MissingError, match=r"Could not read the authority on .*\.pem: .*Give a file with certif"):
            tls_context(True, str(path))
    assert tls_context(True, str(tmp_path)).verify_mode is ssl.CERT_REQUIRED


def load(server: FakeServer, plan: Load, timeout: float = 5.0, prompts: Iterator[Prompt] | None = None) -> Offered:
    async def run() -> Offered:
        client = Client(parse_address(server.url), None, None, timeout)
        try:
            return await offer(client, QUERY, prompts or random_prompts(3, "s"), plan)
        finally:
            client.close()

    return asyncio.run(run())


def test_an_open_loop_waits_for_no_answer() -> None:
    with FakeServer(always(Behaviour(hang_after=0))) as server:
        offered = load(server, Load([0.0, 0.0, 0.0, 0.0], None, None, 100), timeout=0.3)

    assert server.most_open == 4
    assert [entry.error for entry in offered.timelines] == ["timeout"] * 4
    assert [entry.index for entry in offered.timelines] == [0, 1, 2, 3]


def test_no_more_than_the_limit_are_open_and_the_wait_is_noted() -> None:
    with FakeServer(always(Behaviour(first_ms=20))) as server:
        offered = load(server, Load([0.0] * 6, None, 2, 100))

    assert server.most_open == 2
    assert all(entry.ok for entry in offered.timelines)
    assert all(
        entry.planned_s <= entry.released_s <= entry.start_s < entry.token_s[0] <= entry.end_s
        for entry in offered.timelines
    )
    waited = [entry.start_s - entry.released_s for entry in offered.timelines]
    assert max(waited[:2]) < min(waited[2:])


def test_a_client_that_is_late_says_so() -> None:
    def slow() -> Iterator[Prompt]:
        for prompt in random_prompts(3, "s"):
            time.sleep(0.05)  # the event loop stands still meanwhile
            yield prompt

    with FakeServer() as server:
        offered = load(server, Load([0.0, 0.0, 0.0], None, None, 100), prompts=slow())

    assert [entry.planned_s for entry in offered.timelines] == [0.0, 0.0, 0.0]
    assert [entry.released_s >= 0.05 * (entry.index + 1) for entry in offered.timelines] == [True] * 3
    assert max(offered.loop_lag_s) > 0


def test_a_closed_loop_keeps_its_places_taken_until_the_time_is_over() -> None:
    with FakeServer(always(Behaviour(tokens=1, first_ms=5))) as server:
        offered = load(server, Load(None, 1.0, 3, 100))

    assert server.most_open == 3
    assert len(offered.timelines) > 3
    assert all(entry.ok for entry in offered.timelines)
    assert all(entry.released_s < 1.0 for entry in offered.timelines)


def test_after_too_many_failures_nothing_more_is_sent() -> None:
    with FakeServer(always(Behaviour(status=500))) as server:
        offered = load(server, Load([0.0] * 50, None, 1, 5))

    kinds = [entry.error for entry in offered.timelines]
    assert kinds == ["http_status"] * 5 + ["not_sent"] * 45
    assert len(server.asked) == 5


def test_a_closed_loop_ends_after_too_many_failures() -> None:
    with FakeServer(always(Behaviour(status=500))) as server:
        offered = load(server, Load(None, 60.0, 2, 5))

    assert 5 <= len(offered.timelines) <= 7


def test_failures_leave_the_others_alone() -> None:
    def plan(number: int, body: dict[str, Any]) -> Behaviour:
        return [Behaviour(), Behaviour(status=503), Behaviour(drop_after=1)][number % 3]

    with FakeServer(plan) as server:
        offered = load(server, Load([0.0] * 9, None, 1, 100))

    kinds = [entry.error for entry in offered.timelines]
    assert kinds == [None, "http_status", "broken_stream"] * 3


def test_the_request_has_what_was_asked_for() -> None:
    with FakeServer() as server:
        load(server, Load([0.0], None, None, 1))

    body = server.asked[0].body
    assert server.asked[0].path == "/v1/chat/completions"
    assert body["model"] == "m"
    assert body["max_tokens"] == 4
    assert body["stream"] is True
    assert body["stream_options"] == {"include_usage": True}
    assert body["ignore_eos"] is True
    assert len(body["messages"][0]["content"].split()) == 3


def test_the_warm_up_counts_its_failures() -> None:
    async def run(address: Address) -> int:
        client = Client(address, None, None, 5.0)
        failed = await warm_up(client, QUERY, itertools.islice(random_prompts(3, "s"), 9), 6, 2)
        client.close()
        return failed

    with FakeServer(lambda number, body: Behaviour(status=200 if number % 2 else 500)) as server:
        assert asyncio.run(run(parse_address(server.url))) == 3
        assert server.most_open <= 2
