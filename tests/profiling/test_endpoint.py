"""Joules a request and a token of a served language model, against a stub with known ones."""

from __future__ import annotations

import http.server
import json
import math
import threading
import time
from collections.abc import Iterator
from contextlib import closing

import pytest

from ipa_energy.cli import main
from ipa_energy.errors import EXIT_BAD_INPUT, EXIT_DONE, ConfigError, ServingError
from ipa_energy.meters import discovery
from ipa_energy.meters.base import Energy, Reading
from ipa_energy.profile_table.profile_csv import read_profile
from ipa_energy.profiling.endpoint import Answer, Client, Endpoint, Window, _has_token, llm_entry

pytestmark = pytest.mark.measures

IDLE_W, TOKEN_J, TOKEN_S = 50.0, 0.5, 0.002


REFUSALS = {
    "busy": (429, b'{"error": {"message": "slow down"}}'),
    "secret": (401, b'{"message": "who are you?"}'),
    "broken": (500, b"engine died"),
    "page": (200, b"<html>"),
    "strict": (400, b'{"error": {"message": "Unrecognized argument: ignore_eos"}}'),
    "tired": (200, b'data: {"error": {"message": "out of memory"}}\n\ndata: [DONE]\n\n'),
}
"""Model → how the stub refuses it."""


SAID = "'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
RENAMED = json.dumps({"error": {"message": SAID, "param": "max_tokens"}}).encode()


class Stub(http.server.ThreadingHTTPServer):
    """Answers like vLLM, a token each two milliseconds; counts what it made."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.tokens = self.asked = 0
        self.most = 1_000_000
        self.bodies: list[dict] = []
        self.lock = threading.Lock()
        self.says_usage = True
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Stub

    def log_message(self, *args: object) -> None:
        pass

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        longest = "max_completion_tokens" if body["model"] == "reasoner" else "max_tokens"
        count = body.get(longest, 3) if body.get("ignore_eos") else 3
        self.server.asked += 1
        if self.server.asked > self.server.most:
            return self.answer(*REFUSALS["busy"])
        if body["model"] in REFUSALS:
            return self.answer(*REFUSALS[body["model"]])
        if longest not in body:
            return self.answer(400, RENAMED)
        if body["model"] not in ("tiny", "reasoner"):
            return self.answer(404, b'{"error": "no such model"}')
        words = sum(len(each["content"].split()) for each in body["messages"])
        usage = {"prompt_tokens": words, "completion_tokens": count}
        events = []
        for _ in range(count):
            time.sleep(TOKEN_S)
            events.append({"choices": [{"delta": {"content": "x"}}]})
        with self.server.lock:
            self.server.tokens += count
            self.server.bodies.append(body)
        told = {"usage": usage} if self.server.says_usage else {}
        if not body.get("stream"):
            return self.answer(200, json.dumps({"choices": [{}], **told}).encode())
        lines = [*events, {"choices": [], **told}]
        text = "".join(f"data: {json.dumps(one)}\n\n" for one in lines) + "data: [DONE]\n\n"
        return self.answer(200, text.encode())

    def do_GET(self) -> None:
        self.answer(200, b'{"data": [{"id": "tiny"}, {"id": "large"}]}')

    def answer(self, status: int, text: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)


class TokenMeter:
    """Fifty watts, and half a joule for each token that the stub made."""

    name, quality, min_window_s, update_period_s = "tokens", "measured", 0.01, 0.001

    def __init__(self, stub: Stub) -> None:
        self._stub = stub

    def read(self) -> Reading:
        now_s = time.perf_counter()
        return Reading(now_s, {"j": IDLE_W * now_s + TOKEN_J * self._stub.tokens})

    def energy_between(self, start: Reading, end: Reading) -> Energy:
        energy_j = end.counters["j"] - start.counters["j"]
        seconds = end.time_s - start.time_s
        return Energy(energy_j, seconds, {"gpu-0": energy_j}, self.name, "measured")


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stub]:
    server = Stub()
    monkeypatch.setattr(discovery, "open_meter", lambda *_: TokenMeter(server))
    yield server
    server.shutdown()
    server.server_close()


def run(stub: Stub, path, *more: str) -> int:
    given = ["--model", "tiny", "--stage", "chat", "--accuracy", "0.7", "--idle", "0.05"]
    short = ["--requests", "8", "--trials", "2", "--tokens", "10", "--prompt-words", "12"]
    return main(["profile-endpoint", stub.url, *given, *short, "--out", str(path), *more])


@pytest.mark.parametrize("stream", [True, False])
def test_a_row_has_the_joules_of_its_tokens(stub, tmp_path, capsys, stream):
    out = tmp_path / "new" / "llm.csv"
    how = ["--stream"] if stream else []
    assert run(stub, out, "--at-once", "1,4", "--json", *how) == EXIT_DONE
    told = json.loads(capsys.readouterr().out)["entries"]
    rows = read_profile(out)
    assert [row.batch for row in rows] == [1, 4]
    for row, entry in zip(rows, told, strict=True):
        assert row.dynamic_energy_j == pytest.approx(10 * TOKEN_J, rel=1e-3)
        assert row.idle_power_w == pytest.approx(IDLE_W, rel=1e-3)
        assert entry["tokens"] == 10
        assert entry["prompt_tokens"] == 14  # "Request N:" and twelve words
        assert entry["joules_per_token"] == pytest.approx(row.joules_per_request / 10, rel=1e-3)
        assert (entry["first_token_s"] is not None) == stream
        assert (row.meter, row.quality, row.trials) == ("tokens", "measured", 2)
    assert rows[1].throughput_rps > 2 * rows[0].throughput_rps  # four at once, not in turn
    prompts = [json.dumps(body["messages"]) for body in stub.bodies]
    assert len(set(prompts)) > 0.9 * len(prompts)


def test_a_directive_is_a_variant_of_its_own_and_lengths_may_be_natural(stub, tmp_path):
    out = tmp_path / "llm.csv"
    assert run(stub, out, "--variant", "tiny L0") == EXIT_DONE
    brief = ["--variant", "tiny L1", "--directive", "Be brief.", "--natural-length"]
    assert run(stub, out, *brief) == EXIT_DONE
    long, short = read_profile(out)
    assert (long.variant, short.variant) == ("tiny L0", "tiny L1")
    assert short.dynamic_energy_j == pytest.approx(3 * TOKEN_J, rel=1e-3)
    assert stub.bodies[-1]["messages"][0] == {"role": "system", "content": "Be brief."}
    assert run(stub, out, "--variant", "tiny L1") == EXIT_BAD_INPUT  # it is there already
    assert len(read_profile(out)) == 2


def test_an_endpoint_that_knows_the_longest_answer_by_another_name_is_asked_by_it(stub, tmp_path):
    """Once it is refused, before the first window; then every request is answered."""
    assert run(stub, tmp_path / "llm.csv", "--model", "reasoner", "--at-once", "1,4") == EXIT_DONE
    assert stub.asked == 2 + 2 * 2 * 8
    assert len(stub.bodies) == stub.asked - 1
    assert {body["max_completion_tokens"] for body in stub.bodies} == {10}
    assert read_profile(tmp_path / "llm.csv")[0].tokens_per_request == 10


def test_a_refusal_of_both_names_is_no_endless_question(stub, monkeypatch):
    monkeypatch.setitem(REFUSALS, "neither", (400, RENAMED))
    with (
        closing(Client(Endpoint(stub.url, "neither"))) as client,
        pytest.raises(ServingError, match="answers 400: 'max_tokens' is not supported"),
    ):
        client.ask(0)
    assert stub.asked == 2


def test_what_is_wrong_with_an_endpoint_is_said(stub):
    def asked(url: str, model: str) -> None:
        with closing(Client(Endpoint(url, model, max_tokens=1))) as client:
            client.ask(1)

    with pytest.raises(ServingError, match=r"answers 404: .*no such model"):
        asked(stub.url, "other")
    stub.says_usage = False
    with pytest.raises(ServingError, match="how many tokens"):
        asked(stub.url, "tiny")
    with pytest.raises(ServingError, match="does not answer"):
        asked("http://127.0.0.1:9/v1", "tiny")
    with pytest.raises(ConfigError, match="no endpoint"):
        Client(Endpoint("localhost:8000", "tiny"))


def test_the_meter_must_see_the_server(stub, tmp_path, monkeypatch, capsys):
    meter = TokenMeter(stub)
    meter.name = "cpu-time"
    monkeypatch.setattr(discovery, "open_meter", lambda *_: meter)
    assert run(stub, tmp_path / "llm.csv") == 4
    assert "cpu-time counts what this process" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("huge", "answers 404: no such model; fix: --model tiny | large"),
        ("busy", "answers 429: slow down; fix: lift its limit, or fewer at once"),
        ("secret", r"answers 401: who are you\?; fix: its bearer token"),
        ("broken", "answers 500: engine died$"),
        ("strict", "answers 400: .*ignore_eos; fix: --natural-length"),
        ("tired", "breaks off its answer: out of memory"),
        ("page", "an answer is no JSON object: b'<html>'; fix: the URL of an OpenAI-compatible"),
    ],
)
def test_a_refusal_says_what_to_do(stub, model, expected):
    with (
        closing(Client(Endpoint(stub.url, model, stream=model == "tired"))) as client,
        pytest.raises(ServingError, match=expected),
    ):
        client.ask(0)


def test_silence_and_answers_without_a_count_have_a_way_out(stub):
    slow = Endpoint(stub.url, "tiny", max_tokens=400, timeout_s=0.2)
    with closing(Client(slow)) as client, pytest.raises(ServingError, match=r"nothing for 0\.2 s"):
        client.ask(0)
    stub.says_usage = False
    streamed = Endpoint(stub.url, "tiny", max_tokens=2, stream=True)
    with closing(Client(streamed)) as client, pytest.raises(ServingError, match="out --stream, or"):
        client.ask(0)


def test_a_window_with_a_refused_request_ends_at_once_and_is_none(stub, tmp_path, capsys):
    stub.most = 20
    out = tmp_path / "llm.csv"
    assert run(stub, out, "--requests", "400", "--at-once", "4") == 4
    assert "a window with refused requests is no measurement" in capsys.readouterr().err
    assert stub.asked <= 20 + 4
    assert not out.exists()


def test_joules_that_are_hardly_above_idle_are_told(stub, tmp_path, caplog):
    out = tmp_path / "llm.csv"
    assert run(stub, out) == EXIT_DONE
    assert "hardly told from idle" not in caplog.text
    answer = Answer(0.1, math.nan, 10, 10)
    windows = [Window((answer,) * 8, 1.0, IDLE_W + above_j, IDLE_W) for above_j in (0.1, 0.3)]
    llm_entry(read_profile(out)[0], windows, TokenMeter(stub))
    assert "0.025 J a request above idle, ± 0.159: hardly told from idle" in caplog.text


def test_the_first_token_is_not_who_gives_the_answer():
    role = {"choices": [{"delta": {"role": "assistant", "content": ""}}]}
    assert not _has_token(role)
    assert not _has_token({"choices": [], "usage": {}})
    assert _has_token({"choices": [{"delta": {"content": "x"}}]})
    assert _has_token({"choices": [{"delta": {"reasoning_content": "x"}}]})
