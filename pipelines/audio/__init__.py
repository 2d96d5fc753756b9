"""The audio pipeline of sentiment: speech to tokens (``audio``), then its mood (``nlp-sent``)."""
