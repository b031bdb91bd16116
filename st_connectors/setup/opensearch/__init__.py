"""Set up OpenSearch: connectors, remote models, pipelines and an index.

``plan``         the requests, without sending any; ``permissions`` those that change settings of the cluster
``cluster``      what a cluster has; ``apply`` creates and removes
``check``        compares with the library; ``fill`` copies documents of another index
"""
