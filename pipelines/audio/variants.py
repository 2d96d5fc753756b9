"""The variants of the audio pipeline and their published accuracies; imports nothing heavy."""

from __future__ import annotations

from ipa_energy.pipeline_models import Variant

SPEECH_SOURCE = (
    "1 - word error rate on LibriSpeech test-clean with 5 beams, "
    "https://github.com/facebookresearch/fairseq, examples/speech_to_text"
)
MOOD_SOURCE = "accuracy on SST-2 (development set), DistilBERT, arXiv:1910.01108, table 1"

CLIP_S = 5.8
"""Length of the clips that are made, that of the one in IPA's own pipelines."""

FRAMES, BANDS = 580, 80
"""Of a clip's log-mel spectrum: a frame each 10 ms."""

TOKENS = 20
"""Made of a clip, whatever its length, and read by the second stage."""

SPEECH_ACCURACIES = {"s2t-small": 0.956, "s2t-medium": 0.966}
MOOD_ACCURACIES = {"distilbert": 0.913, "bert": 0.927}

VARIANTS: tuple[Variant, ...] = (
    *(Variant("audio", n, a, SPEECH_SOURCE, (FRAMES, BANDS)) for n, a in SPEECH_ACCURACIES.items()),
    *(Variant("nlp-sent", n, a, MOOD_SOURCE, (TOKENS,)) for n, a in MOOD_ACCURACIES.items()),
)
