"""How the audio pipeline is served: a clip in, its mood out.

::

    PCM ─audio─▶ log-mel spectrum ▶ network ▶ tokens as JSON ─nlp-sent─▶ network ▶ JSON

A clip is 16-bit little-endian samples of one channel, 16,000 a second, without a header. Clips of a
batch are filled with silence to the longest. The answer is ``{"mood", "score", "weights"}``;
``weights`` is ``random`` where it means nothing.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from typing import Any

from ipa_energy.errors import ConfigError
from ipa_energy.pipeline_models import Handler, Runner, Signature, Variant

from .variants import BANDS, CLIP_S, TOKENS

RATE_HZ = 16_000
SAMPLE_BYTES = 2
SHORTEST_S, LONGEST_S = 0.1, 30.0

SIGNATURES = {
    "audio": Signature(
        f"audio/l16;rate={RATE_HZ}", "application/json", int(LONGEST_S * RATE_HZ) * SAMPLE_BYTES
    ),
    "nlp-sent": Signature("application/json", "application/json", 10_000),
}

VOCABULARY = 10_000
"""Of the first stage's tokens; every network of the second knows as many."""

WINDOW, STEP, POINTS = 400, 160, 512
"""Samples: frames of 25 ms, one each 10 ms, and the transform they are filled up to."""

LEAST_POWER = 1e-10
MOODS = ("negative", "positive")


def handler(variant: Variant, run: Runner, weights: str | None) -> Handler:
    """What answers a batch with a loaded network; see ``pipeline.handler``."""
    if variant.stage == "audio":
        return _listener(run)
    return _judge(run, "random" if weights is None else "given")


def signature(stage: str) -> Signature:
    """What a stage takes and gives."""
    if stage not in SIGNATURES:
        raise ConfigError(f"no stage {stage!r}", allowed=", ".join(SIGNATURES))
    return SIGNATURES[stage]


def requests(seed: int, count: int, *, stage: str | None = None) -> list[bytes]:
    """Seeded clips of 5.8 s of noise; for the second stage, seeded tokens."""
    chances = [random.Random(f"{seed}/{number}") for number in range(count)]
    if signature(stage or "audio") == SIGNATURES["audio"]:
        return [chance.randbytes(round(CLIP_S * RATE_HZ) * SAMPLE_BYTES) for chance in chances]
    return [
        json.dumps([chance.randrange(VOCABULARY) for _ in range(TOKENS)]).encode()
        for chance in chances
    ]


def _listener(run: Runner) -> Handler:
    import numpy as np
    import torch

    filters = torch.from_numpy(_filters())
    window = torch.hann_window(WINDOW)

    def answer(elements: Sequence[bytes]) -> list[bytes]:
        clips = [_samples(element, number) for number, element in enumerate(elements)]
        batch = np.zeros((len(clips), max(map(len, clips))), dtype=np.float32)
        for row, clip in zip(batch, clips, strict=True):
            row[: len(clip)] = clip
        spectrum = torch.stft(
            torch.from_numpy(batch), POINTS, STEP, WINDOW, window, center=True, return_complex=True
        )
        power = spectrum.abs().square().transpose(1, 2) @ filters
        features = power.clamp(min=LEAST_POWER).log()
        features = (features - features.mean(1, keepdim=True)) / features.std(1, keepdim=True)
        return [json.dumps(tokens).encode() for tokens in run(features.nan_to_num()).tolist()]

    return answer


def _samples(element: bytes, number: int) -> Any:
    """Its samples, −1..1.

    Raises:
        ValueError: it is no clip.
    """
    import numpy as np

    seconds = len(element) / SAMPLE_BYTES / RATE_HZ
    if len(element) % SAMPLE_BYTES or not SHORTEST_S <= seconds <= LONGEST_S:
        raise ValueError(
            f"element {number} of {len(element)} bytes is no clip; allowed: 16-bit samples,"
            f" {RATE_HZ} a second, of {SHORTEST_S:g} to {LONGEST_S:g} s"
        )
    return np.frombuffer(element, dtype="<i2").astype(np.float32) / 2**15


def _filters() -> Any:
    """(257, 80): how much each frequency counts in each band, triangles even on the mel scale."""
    import numpy as np

    def mel(hertz: Any) -> Any:
        return 1127 * np.log1p(hertz / 700)

    edges = np.linspace(mel(20.0), mel(RATE_HZ / 2), BANDS + 2)
    at = mel(np.linspace(0, RATE_HZ / 2, POINTS // 2 + 1))[:, None]
    rising = (at - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - at) / (edges[2:] - edges[1:-1])
    return np.maximum(0, np.minimum(rising, falling)).astype(np.float32)


def _judge(run: Runner, weights: str) -> Handler:
    import torch

    def answer(elements: Sequence[bytes]) -> list[bytes]:
        tokens = [_tokens(element, number) for number, element in enumerate(elements)]
        scores, moods = run(torch.tensor(tokens)).softmax(1).max(1)
        return [
            json.dumps({"mood": MOODS[mood], "score": round(score, 4), "weights": weights}).encode()
            for mood, score in zip(moods.tolist(), scores.tolist(), strict=True)
        ]

    return answer


def _tokens(element: bytes, number: int) -> list[int]:
    """Its tokens.

    Raises:
        ValueError: it has none, or others.
    """
    try:
        tokens = json.loads(element)
    except (ValueError, RecursionError):
        tokens = None
    if not (isinstance(tokens, list) and len(tokens) == TOKENS and all(map(_is_token, tokens))):
        raise ValueError(
            f"element {number} of {len(element)} bytes is no text; allowed: a JSON list of"
            f" {TOKENS} whole numbers from 0 to {VOCABULARY - 1}"
        )
    return tokens


def _is_token(value: object) -> bool:
    return type(value) is int and 0 <= value < VOCABULARY
