"""The demo's corpus: docstrings of the standard library, with plain words beside technical terms."""
