"""The store of both Lucene engines, Elasticsearch and OpenSearch; no client is imported here.

- ``plugin``: capabilities, sizing and the plugin entry that both engines extend.
- ``client``: a connection that sends one request and returns its parsed answer.
- ``engine``: what the two engines do differently, as data and functions.
- ``store``: the store, and the functions that open, adopt and list collections.
- ``loading``: index settings for bulk loading.
- ``options``: address options that both engines have.
- ``names``: index names, field names without dots, keys of rank features.
- ``vocabulary``: tokens and indices of a model, read from its files.
- ``keys``: keys of sparse fields, indices or tokens.
- ``layout``: documents of our own collections (``OwnLayout``) and of adopted ones (``AdoptedLayout``).
- ``forms``: field types and index kinds of a collection's vectors, and its mapping.
- ``filters``: filters as queries.
- ``queries``: search bodies, and the legs that both engines share.
- ``conversions``: public conversions that both engines share.
- ``scores``: vector scores from the engines' positive scores.
- ``bulk``: lines and results of bulk requests.
- ``answers``: records and hits from answers.
- ``faults``: HTTP statuses and error bodies as store errors.
- ``encoding``: JSON with short float32 numbers.

A collection "books" is an index ``books@1`` behind the alias ``books``. Bulk requests require the alias: both engines
otherwise create an index for any write to an unknown name.
"""
