"""Asking a Prometheus server, over HTTP and nothing else.

Three questions are enough: what time it is there (samples carry the server's clock, not ours), the
raw samples of a selector, and the value of an expression. Whatever goes wrong is said once, here,
in words that name the server, without its password.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ipa_energy.errors import ConfigError
from ipa_energy.meters.base import MeterFault, State

METER = "prometheus"

CLOCK_ROUNDING_S = 1e-3

TIMEOUT_S = 10.0

_HTTP: dict[int, tuple[State, str]] = {
    401: ("denied", "give credentials: http://USER:PASSWORD@HOST or an Authorization header"),
    403: ("denied", "these credentials may not query; ask for the right to, or use others"),
    404: ("absent", "the URL must be where Prometheus' own page is, its path prefix included"),
    503: ("dead", "the server is starting, or the query took too long; try again"),
}


@dataclass(frozen=True, slots=True)
class CounterSeries:
    """One time series as it was scraped.

    Attributes:
        labels: label → value; the metric's name is ``__name__``.
        times_s: Unix seconds of the samples, ascending.
        values: of the samples, in the counter's unit.
    """

    labels: Mapping[str, str]
    times_s: tuple[float, ...]
    values: tuple[float, ...]

    @property
    def label(self) -> str:
        """The series as PromQL writes it, for messages."""
        pairs = [f'{key}="{value}"' for key, value in self.labels.items() if key != "__name__"]
        return f"{self.labels.get('__name__', '')}{{{', '.join(pairs)}}}"


class PrometheusServer:
    """A Prometheus server, or anything that speaks its HTTP API.

    Args:
        url: ``http://HOST:9090``, with a path prefix if it has one; ``USER:PASSWORD@`` in it is
            sent as basic authentication and never shown.
        headers: sent with each request, e.g. ``{"Authorization": "Bearer …"}``.
        timeout_s: longest silence of the server.

    Raises:
        ConfigError: ``url`` is no http or https address, or the timeout no positive time.
    """

    def __init__(
        self, url: str, *, headers: Mapping[str, str] | None = None, timeout_s: float = TIMEOUT_S
    ) -> None:
        if not (timeout_s > 0 and math.isfinite(timeout_s)):
            raise ConfigError(f"the timeout of {timeout_s} s", allowed="more than 0 s")
        self.url, credentials = _checked(url)
        self.timeout_s = timeout_s
        self._headers = {**credentials, **(headers or {})}

    def now_s(self) -> float:
        """Unix seconds on the server's clock.

        Raises:
            MeterUnavailableError: it does not answer.
        """
        data = self._ask("query", {"query": "time()"})
        try:
            result, is_vector = data["result"], data.get("resultType") == "vector"
            asked_s, told_s = map(float, result[0]["value"] if is_vector else result)
            # VictoriaMetrics answers for some whole seconds ago (search.latencyOffset, 30 s), to
            # the millisecond, and says when it was asked to the second.
            return told_s + max(0, math.ceil(asked_s - told_s - CLOCK_ROUNDING_S))
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise self._no_api("time() gave no number") from error

    def series(self, selector: str, start_s: float, end_s: float) -> list[CounterSeries]:
        """Raw samples of every series that ``selector`` picks, from ``start_s`` to ``end_s``.

        Args:
            selector: an instant vector selector, ``name{label="value"}``.
            start_s: Unix seconds on the server's clock.
            end_s: likewise, later.

        Raises:
            ConfigError: the server refuses the selector.
            MeterUnavailableError: it does not answer, or not with samples.
        """
        # Prometheus 3 leaves the sample at the left end out; what is too early is dropped here.
        span_ms = math.ceil((end_s - start_s) * 1000) + 1
        data = self._ask("query", {"query": f"{selector}[{span_ms}ms]", **_at(end_s)})
        found = []
        try:
            for item in data["result"]:
                pairs = [(float(t), float(v)) for t, v in item["values"] if float(t) >= start_s]
                labels = {str(key): str(value) for key, value in item["metric"].items()}
                times_s, values = tuple(t for t, _ in pairs), tuple(v for _, v in pairs)
                if pairs:
                    found.append(CounterSeries(labels, times_s, values))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise self._no_api(f"{selector} gave no plain samples") from error
        return found

    def vector(self, expression: str, time_s: float | None = None) -> list[CounterSeries]:
        """What an expression is at ``time_s`` (None for now), one sample a series.

        A scalar is a series without labels.

        Raises:
            ConfigError: the server refuses the expression.
            MeterUnavailableError: it does not answer, or not with numbers.
        """
        data = self._ask("query", {"query": expression, **_at(time_s)})
        result: Any = data.get("result")
        if data.get("resultType") == "scalar":
            result = [{"metric": {}, "value": result}]
        try:
            return [
                CounterSeries(
                    {str(key): str(value) for key, value in item["metric"].items()},
                    (float(item["value"][0]),),
                    (float(item["value"][1]),),
                )
                for item in result
            ]
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            raise self._no_api(f"{expression} gave no plain numbers") from error

    def metric_type(self, name: str) -> str | None:
        """What the exporter calls a metric: ``counter``, ``gauge`` …; None if nobody knows."""
        try:
            data = self._ask("metadata", {"metric": name})
            types = {str(each["type"]) for each in data.get(name, ())}
        except (MeterFault, ConfigError, KeyError, TypeError):
            return None  # not every server that speaks PromQL has this
        return types.pop() if len(types) == 1 else None

    def _ask(self, endpoint: str, arguments: Mapping[str, str]) -> dict[str, Any]:
        """The ``data`` of an answer."""
        from urllib.parse import urlencode

        body = self._fetch(f"{self.url}/api/v1/{endpoint}?{urlencode(arguments)}", arguments)
        try:
            answer = json.loads(body, parse_constant=_no_constant)
            status, data = answer["status"], answer["data"]
        except (ValueError, KeyError, TypeError) as error:
            raise self._no_api("the answer is not its JSON") from error
        if status != "success" or not isinstance(data, dict):
            raise self._no_api(f"the answer has status {status!r}")
        warnings = [w for w in answer.get("warnings", []) if not str(w).startswith("PromQL info")]
        if warnings:
            raise MeterFault(
                METER,
                "dead",
                f"{self.url} warns that the answer is not whole: {'; '.join(map(str, warnings))}",
                "repair what it names: a part of the joules may be missing",
            )
        return data

    def _fetch(self, address: str, arguments: Mapping[str, str]) -> bytes:
        import urllib.request
        from http.client import HTTPException
        from urllib.error import HTTPError

        class NoRedirect(urllib.request.HTTPRedirectHandler):
            """Credentials go to the server they were given for and to no other."""

            def redirect_request(self, *_: Any) -> None:
                return None

        request = urllib.request.Request(address, headers=dict(self._headers))
        try:
            with urllib.request.build_opener(NoRedirect).open(
                request, timeout=self.timeout_s
            ) as response:
                body = response.read()
                return bytes(body)
        except HTTPError as error:
            with error:
                raise self._http_fault(
                    error.code, dict(error.headers), error.read(), arguments
                ) from None
        except (OSError, HTTPException, ValueError) as error:
            reason = getattr(error, "reason", error)
            slow = isinstance(reason, TimeoutError)
            what = f"does not answer within {self.timeout_s:g} s" if slow else f"fails: {reason}"
            raise MeterFault(
                METER,
                "dead" if slow else "absent",
                f"{self.url} {what}",
                "check the URL and that the server runs; curl URL/-/ready shows it",
            ) from error

    def _http_fault(
        self, code: int, headers: Mapping[str, str], body: bytes, arguments: Mapping[str, str]
    ) -> ConfigError | MeterFault:
        if 300 <= code < 400:
            return MeterFault(
                METER, "absent", f"{self.url} redirects to {headers.get('Location')}", "use that"
            )
        try:
            answer = json.loads(body)
            said = f"{answer['errorType']}: {answer['error']}"
        except (ValueError, KeyError, TypeError):
            said = f"HTTP {code}"
        else:
            if code in (400, 422):
                return ConfigError(
                    f"{self.url} refuses the query: {said}", where=arguments["query"]
                )
        state, fix = _HTTP.get(code, ("dead", "see the server's log"))
        return MeterFault(METER, state, f"{self.url} answers {code} ({said})", fix)

    def _no_api(self, what: str) -> MeterFault:
        fix = "the URL must be where Prometheus' own page is, its path prefix included"
        return MeterFault(METER, "absent", f"{self.url} is no Prometheus API: {what}", fix)


def _at(time_s: float | None) -> dict[str, str]:
    """Arguments for an answer at a time, and not some seconds before it where samples are fresh."""
    return {} if time_s is None else {"time": f"{time_s:.3f}", "nocache": "1"}


def _checked(url: str) -> tuple[str, dict[str, str]]:
    """The address without credentials or trailing slash, and the header that carries them."""
    from urllib.parse import unquote, urlsplit, urlunsplit

    allowed = "http://HOST:PORT or https://HOST:PORT, with a path prefix if it has one"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ConfigError(f"the server's address is malformed: {error}", allowed=allowed) from error
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        shown = url.rpartition("@")[2]
        raise ConfigError(f"{shown!r} is no address of a Prometheus server", allowed=allowed)
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    netloc = host if port is None else f"{host}:{port}"
    headers = {}
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
        headers["Authorization"] = f"Basic {base64.b64encode(pair).decode()}"
    return urlunsplit((parts.scheme, netloc, parts.path.rstrip("/"), "", "")), headers


def _no_constant(word: str) -> float:
    raise ValueError(f"{word} is not JSON")
