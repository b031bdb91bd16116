"""Models that another process computes, over HTTP: with the methods of local models, and the same results.

The server is ``st-connectors serve``, Text Embeddings Inference, or one with the API of OpenAI or Cohere. Nothing but
numpy and the standard library is needed.
"""

from __future__ import annotations

from st_core.remote.models import RemoteCrossEncoder, RemoteSentenceTransformer, RemoteSparseEncoder

__all__ = ["RemoteCrossEncoder", "RemoteSentenceTransformer", "RemoteSparseEncoder"]
