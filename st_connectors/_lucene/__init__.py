"""What Elasticsearch and OpenSearch share because both are Lucene; pure, nothing is sent and no client is imported.

- ``names``: which collection names an index can have, field names without dots, keys of rank features.
- ``vocabulary``: a model's tokens and indices, read from its files.
- ``keys``: what the keys of sparse fields are, indices or tokens.
- ``layout``: what a document looks like (``Hidden`` for our own collections, ``Plain`` for other people's) and how it is mapped and read.
- ``forms``: how a collection keeps its vectors, and its mapping, ours or other people's.
- ``existing``: what is found, or not, where a collection should be.
- ``options``: options of an address that both engines have.
- ``filters``: filters as queries.
- ``queries``: sparse and text legs, and the body around a leg that filters, orders and pages.
- ``scores``: what an engine's folded score means.
- ``bulk``: the lines of a bulk request, and its answer item by item.
- ``answers``: answers to reads, as records and hits.
- ``faults``: HTTP statuses and error bodies as our errors.
- ``loading``: settings of an index while it is loaded.
- ``entry``: the functions of a plugin, before its client is imported.
- ``sizing``: what sparse vectors and shards are reckoned to take.

A collection "books" is an index ``books@1`` behind the alias ``books``: bulk requests with ``require_alias=true`` then cannot make an index
by mistake, which both engines otherwise do for any write to a name that is not there.
"""
