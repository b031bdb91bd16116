"""The shared store of the two Lucene engines, Elasticsearch and OpenSearch; neither client is imported here.

- ``plugin``: the capabilities, sizing and plugin entry that both engines extend.
- ``client``: a connection that sends one request and returns the parsed response.
- ``engine``: the differences between the two engines, as data and functions.
- ``store``: the store, and the functions that open, adopt and list collections.
- ``loading``: index settings for bulk loading.
- ``options``: address options that both engines have.
- ``names``: index names, field names without dots, and keys of rank features.
- ``vocabulary``: the tokens and indices of a model, read from its files.
- ``keys``: the keys of sparse fields, which are indices or tokens.
- ``layout``: the documents of collections of this package (``OwnLayout``) and of adopted ones (``AdoptedLayout``).
- ``fields`` and ``plain``: documents whose payload is ordinary fields (``FieldsLayout``).
- ``forms``: the field types and index kinds of a collection's vectors, and its mapping.
- ``filters``: conversion of filters to queries.
- ``queries``: search bodies, and the legs that both engines share.
- ``conversions``: the public conversions that both engines share.
- ``scores``: conversion of the engines' positive scores to vector scores.
- ``bulk``: the lines and results of bulk requests.
- ``answers``: conversion of responses to records and hits.
- ``faults``: conversion of HTTP statuses and error bodies to store errors.
- ``encoding``: JSON with short float32 numbers.

A collection "books" is an index ``books@1`` with the alias ``books``. Bulk requests set ``require_alias``, because
otherwise both engines create an index for any write to an unknown name.
"""
