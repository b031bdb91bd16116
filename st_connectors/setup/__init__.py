"""Let stores encode: each calls an encoder server, started by ``st-connectors serve``, from its own pipelines.

``options``    what the user wants; ``encoder`` the models of the encoder server
``requests``   requests as values; a folder or module per store builds them without sending any
``stores``     the set-up of each store by its name; ``base`` is what all can do
``comparing``  checks against the library's vectors
``components`` configuration for stores that are set up by files
"""
