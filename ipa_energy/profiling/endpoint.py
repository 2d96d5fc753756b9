"""Entries of a language model that a server elsewhere answers with: an OpenAI-compatible endpoint.

::

    idle │ c clients, one request after the other each ........ │ idle
         │ start ──── all requests of a window ──────────── end │

Joules are the meter's over the window, tokens are the endpoint's own count (``usage``), and a batch
is the number *c* of requests that are under way at once: what batching makes of them is the
server's affair. Idle watts are those before and after with the model loaded. The endpoint must be
served by what the meter measures, and by nothing else that works meanwhile.

Lengths are forced by ``max_tokens``, with ``min_tokens`` and ``ignore_eos`` as vLLM has them; an
endpoint without those stops where the model does, and the tokens that came are what is told. An
endpoint that knows ``max_completion_tokens`` only is asked again by that name, once. A generation
directive is the system message.
"""

from __future__ import annotations

import http.client
import itertools
import json
import logging
import math
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from ipa_energy.energy import joules_per_request
from ipa_energy.errors import ConfigError, MeterUnavailableError, ServingError
from ipa_energy.interval import half_width_95
from ipa_energy.measuring.command import energy_of
from ipa_energy.meters.base import Meter
from ipa_energy.profile_table.profile_row import ProfileRow, rounded
from ipa_energy.profiling.trial_windows import TrialSettings, idle_window
from ipa_energy.records import meters_in
from ipa_energy.tables import signed

logger = logging.getLogger(__name__)

WORDS = ("energy", "pipeline", "latency", "model", "request", "carbon", "batch", "cluster")
"""Prompts are made of these: no text of anybody, and no two alike, so that no cache answers."""

FORCING = ("min_tokens", "ignore_eos")
"""What asks for exactly so many tokens; not every endpoint knows it."""


LONGEST, RENAMED = "max_tokens", "max_completion_tokens"
"""What bounds an answer; OpenAI gave it the other name, and its newer models know no other."""

REFUSES_A_KEY = (http.client.BAD_REQUEST, http.client.UNPROCESSABLE_ENTITY)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where requests go and what they say.

    Attributes:
        url: of the API: ``http://127.0.0.1:8000/v1``.
        model: name by which the endpoint knows the model.
        directive: system message; "" for none.
        prompt_words: of the user's message.
        max_tokens: longest answer.
        forced: True to ask for exactly so many.
        stream: True to have tokens one by one, which shows the time to the first.
        key: bearer token; "" for none.
        timeout_s: longest silence.
        longest: by which name it knows ``max_tokens``.
    """

    url: str
    model: str
    directive: str = ""
    prompt_words: int = 100
    max_tokens: int = 128
    forced: bool = True
    stream: bool = False
    key: str = ""
    timeout_s: float = 300.0
    longest: str = LONGEST

    def body(self, number: int) -> dict[str, Any]:
        """The request of a number."""
        words = [WORDS[(number * 31 + at * (1 + number % 7)) % len(WORDS)] for at in range(20_000)]
        text = f"Request {number}: " + " ".join(words[: self.prompt_words])
        system = [{"role": "system", "content": self.directive}] if self.directive else []
        forced = dict(zip(FORCING, (self.max_tokens, True), strict=True)) if self.forced else {}
        streamed = {"stream": True, "stream_options": {"include_usage": True}}
        return {
            "model": self.model,
            "messages": [*system, {"role": "user", "content": text}],
            self.longest: self.max_tokens,
            **forced,
            **(streamed if self.stream else {}),
        }


@dataclass(frozen=True, slots=True)
class Answer:
    """One answered request.

    Attributes:
        latency_s: from sending to the last byte.
        first_token_s: to the first token of a stream; NaN without.
        prompt_tokens, tokens: as the endpoint counts them.
    """

    latency_s: float
    first_token_s: float
    prompt_tokens: int
    tokens: int


class Client:
    """One connection, kept open; not for several threads.

    Args:
        endpoint: whom to ask.

    Attributes:
        endpoint: the same, with what was learned of it by asking.

    Raises:
        ConfigError: its URL is none.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        parts = urlsplit(endpoint.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(
                f"no endpoint: {endpoint.url}", allowed="http://HOST:PORT/v1, or https"
            )
        secure = parts.scheme == "https"
        kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        self._connection = kind(parts.hostname, parts.port, timeout=endpoint.timeout_s)
        self._base = parts.path.rstrip("/")
        self.endpoint = endpoint

    def ask(self, number: int) -> Answer:
        """Send one request and wait for all of its answer.

        Raises:
            ServingError: no answer, or one that says an error or no count of tokens.
        """
        try:
            return self._ask(number)
        except _RenamedError:
            self.endpoint = replace(self.endpoint, longest=RENAMED)
            return self._ask(number)

    def _ask(self, number: int) -> Answer:
        body, path = json.dumps(self.endpoint.body(number)), f"{self._base}/chat/completions"
        start_s = time.perf_counter()
        try:
            self._connection.request("POST", path, body, self._headers())
            response = self._connection.getresponse()
            if response.status != http.client.OK:
                said = _message(response.read())
                is_renamed = (
                    response.status in REFUSES_A_KEY
                    and RENAMED in said
                    and self.endpoint.longest != RENAMED
                )
                raise (_RenamedError if is_renamed else ServingError)(
                    f"{self.endpoint.url} answers {response.status}: {said}"
                    + self._way_out(response.status, said)
                )
            first_s, usage = self._read(response)
        except TimeoutError as error:
            self._connection.close()
            raise ServingError(
                f"{self.endpoint.url} said nothing for {self.endpoint.timeout_s:g} s;"
                " fix: shorter answers (--tokens), or fewer requests at once (--at-once)"
            ) from error
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            raise ServingError(
                f"{self.endpoint.url} does not answer: {error}; fix: start it, and name the URL of"
                " its API, such as http://127.0.0.1:8000/v1"
            ) from error
        end_s = time.perf_counter()
        try:
            counts = (int(usage["prompt_tokens"]), int(usage["completion_tokens"]))
        except (KeyError, TypeError, ValueError) as error:
            raise ServingError(
                f"{self.endpoint.url} does not say how many tokens its answers have (usage);"
                f" fix: {'leave out --stream, or ' if self.endpoint.stream else ''}an endpoint"
                " that counts them, as vLLM does"
            ) from error
        return Answer(end_s - start_s, first_s - start_s, *counts)

    def _headers(self) -> dict[str, str]:
        key = self.endpoint.key
        bearer = {"Authorization": f"Bearer {key}"} if key else {}
        return {"Content-Type": "application/json", **bearer}

    def models(self) -> list[str]:
        """Names of the models that the endpoint has; none where it does not say."""
        try:
            self._connection.request("GET", f"{self._base}/models", headers=self._headers())
            found = json.loads(self._connection.getresponse().read())
            return [str(each["id"]) for each in found["data"]]
        except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError):
            self._connection.close()
            return []

    def _way_out(self, status: int, said: str) -> str:
        """What to do about a refusal; "" where nobody can say."""
        if status == http.client.NOT_FOUND:
            names = self.models()
            known = f"--model {' | '.join(names)}" if names else "the URL of its API, ending in /v1"
            return f"; fix: {known}"
        if self.endpoint.forced and any(name in said for name in FORCING):
            return "; fix: --natural-length, which asks for no exact number of tokens"
        if status in (http.client.UNAUTHORIZED, http.client.FORBIDDEN):
            return "; fix: its bearer token (profile-endpoint --help says where it is read)"
        if status == http.client.TOO_MANY_REQUESTS:
            return (
                "; fix: lift its limit, or fewer at once (--at-once): a window with refused"
                " requests is no measurement"
            )
        return ""

    def _read(self, response: http.client.HTTPResponse) -> tuple[float, Any]:
        """When the first token came (NaN if nobody can say), and the count of tokens."""
        if not self.endpoint.stream:
            return math.nan, self._object(response.read()).get("usage")
        first_s, usage = math.nan, None
        for line in response:
            data = line.strip().removeprefix(b"data:").strip()
            if not line.startswith(b"data:") or data == b"[DONE]":
                continue
            event = self._object(data)
            if event.get("error"):
                raise ServingError(f"{self.endpoint.url} breaks off its answer: {_message(data)}")
            if math.isnan(first_s) and _has_token(event):
                first_s = time.perf_counter()
            usage = event.get("usage") or usage
        response.read()  # else the connection is not free for the next request
        return first_s, usage

    def _object(self, text: bytes) -> dict[str, Any]:
        try:
            found = json.loads(text)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise ServingError(
                f"{self.endpoint.url}: an answer is no JSON object: {text[:80]!r};"
                " fix: the URL of an OpenAI-compatible API, ending in /v1"
            )
        return found

    def close(self) -> None:
        """End the connection."""
        self._connection.close()


class _RenamedError(ServingError):
    """An endpoint refuses ``max_tokens`` and names the other name."""


def _has_token(event: Mapping[str, Any]) -> bool:
    """True if a part of a stream has some of the answer, not only who gives it."""
    deltas = [choice.get("delta") or {} for choice in event.get("choices") or ()]
    return any(text for delta in deltas for name, text in delta.items() if name != "role")


def _message(text: bytes) -> str:
    """What an endpoint says of an error: its message, or the beginning of what it sent."""
    try:
        found = json.loads(text)
        inner = found.get("error", found)
        return str(inner["message"] if isinstance(inner, dict) else inner)
    except (ValueError, KeyError, AttributeError):
        return text[:300].decode(errors="replace").strip()


@dataclass(frozen=True, slots=True)
class Window:
    """Requests of one window and its joules."""

    answers: tuple[Answer, ...]
    duration_s: float
    energy_j: float
    idle_power_w: float

    @property
    def dynamic_energy_j(self) -> float:
        """Joules above idle."""
        return self.energy_j - self.idle_power_w * self.duration_s


@dataclass(frozen=True, slots=True)
class LlmEntry:
    """What was measured of one variant at one number of requests at once.

    Attributes:
        row: of the profile.
        tokens, prompt_tokens: of a request, mean.
        tokens_per_s: of the endpoint.
        first_token_s: mean time to the first token; NaN without streaming.
        joules_per_token: dynamic and waiting, of a token of the answers.
    """

    row: ProfileRow
    tokens: float
    prompt_tokens: float
    tokens_per_s: float
    first_token_s: float
    joules_per_token: float


def measure_window(
    endpoint: Endpoint, meter: Meter, *, at_once: int, requests: int, settings: TrialSettings
) -> Window:
    """Send requests, so many at once, between two idle windows.

    Raises:
        ServingError: a request failed.
        MeterUnavailableError: the meter cannot be read or stood still.
        ConfigError: the window was too short for the meter.
    """
    numbers = itertools.count(int(time.time() * 1000) % 1_000_000)
    lock = threading.Lock()
    left = [requests]

    def work() -> list[Answer]:
        client = Client(endpoint)
        found: list[Answer] = []
        try:
            while True:
                with lock:
                    if left[0] == 0:
                        return found
                    left[0] -= 1
                    number = next(numbers)
                found.append(client.ask(number))
        except BaseException:
            with lock:
                left[0] = 0  # the window is none: the others ask no more
            raise
        finally:
            client.close()

    before_w = idle_window(meter, settings, settle=False).energy.power_w
    start = meter.read()
    with ThreadPoolExecutor(at_once) as pool:
        answers = [
            one for done in [pool.submit(work) for _ in range(at_once)] for one in done.result()
        ]
    end = meter.read()
    after_w = idle_window(meter, settings, settle=False).energy.power_w
    energy = energy_of(meter, start, end)
    if energy is None:
        raise ConfigError(
            f"{requests} requests took {end.time_s - start.time_s:.3g} s",
            allowed=f"windows of {meter.min_window_s:g} s and more, which {meter.name} needs",
            fix="more requests a window (--requests)",
        )
    idle_w = fmean([before_w, after_w])
    return Window(tuple(answers), energy.duration_s, energy.energy_j, idle_w)


def llm_entry(row: ProfileRow, windows: Sequence[Window], meter: Meter) -> LlmEntry:
    """The entry of some windows.

    Args:
        row: its key and accuracy; the figures are put in.
        windows: one a trial.
        meter: that measured them.

    Raises:
        MeterUnavailableError: the joules are not above idle, so what works is not what is metered.
    """
    answers = [one for window in windows for one in window.answers]
    joules = [window.dynamic_energy_j / len(window.answers) for window in windows]
    dynamic_j = fmean(joules)
    if not dynamic_j > 0:
        raise MeterUnavailableError(
            f"{meter.name} shows {signed(dynamic_j, '.3g')} J a request above idle: the endpoint"
            " does not run on what this meter measures, or its counter is dead"
        )
    ci95_j = half_width_95(joules)
    if dynamic_j < ci95_j:
        logger.warning(
            "%s: %.3g J a request above idle, ± %.3g: hardly told from idle; fix: more requests a"
            " window or more trials, and see that the endpoint runs on what %s measures",
            *(row.label, dynamic_j, ci95_j, meter.name),
        )
    latencies_s = np.array([one.latency_s for one in answers])
    busy_s = sum(window.duration_s for window in windows)
    throughput_rps = len(answers) / busy_s
    idle_w = fmean([window.idle_power_w for window in windows])
    whole_j = joules_per_request(dynamic_j, idle_w, 1, throughput_rps)
    tokens = fmean([one.tokens for one in answers])
    average_s = float(latencies_s.mean())
    filled = replace(
        row,
        load_rps=rounded(throughput_rps),
        latency_avg_s=rounded(average_s),
        latency_p99_s=rounded(max(float(np.percentile(latencies_s, 99)), average_s)),
        throughput_rps=rounded(throughput_rps),
        dynamic_energy_j=rounded(dynamic_j),
        idle_power_w=rounded(idle_w),
        joules_per_request=rounded(
            joules_per_request(rounded(dynamic_j), rounded(idle_w), 1, rounded(throughput_rps))
        ),
        energy_ci95_j=rounded(ci95_j),
        trials=len(windows),
        meter=meter.name,
        quality=meter.quality,
        tokens_per_request=rounded(tokens) if tokens else math.nan,
    )
    return LlmEntry(
        row=filled,
        tokens=tokens,
        prompt_tokens=fmean([one.prompt_tokens for one in answers]),
        tokens_per_s=sum(one.tokens for one in answers) / busy_s,
        first_token_s=fmean([one.first_token_s for one in answers]),
        joules_per_token=whole_j / tokens if tokens else math.nan,
    )


def require_counter(meter: Meter) -> None:
    """Refuse a meter that sees this process alone: the endpoint is another one.

    Raises:
        MeterUnavailableError: it counts CPU time.
    """
    if "cpu-time" in meters_in(meter.name):
        raise MeterUnavailableError(
            "cpu-time counts what this process and its children use, and the endpoint is neither;"
            " fix: a meter of the machine that serves it (--meter nvml, rapl, dcgm, prometheus)"
        )
