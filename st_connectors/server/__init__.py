"""A server of models in the request shapes of many APIs; needs the extra ``server``.

``shapes`` contains the protocols: pure functions from requests to calls, and from results to answers.
"""
