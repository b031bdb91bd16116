"""The demo's collection: docstrings of the standard library, indexed with everyday words beside the technical ones.

``docstrings`` collects them, ``corpus`` turns them into documents with ``plain_words`` and ``wordings``, and ``build``
fills the collection that the demo's questions are asked of.
"""
