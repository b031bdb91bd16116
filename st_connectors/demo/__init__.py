"""The collection of the demo: docstrings of the standard library, indexed with everyday words for technical words.

``docstrings`` collects the docstrings, ``corpus`` converts them to documents with the help of ``plain_words`` and
``wordings``, and ``build`` fills the collection that the demo searches.
"""
