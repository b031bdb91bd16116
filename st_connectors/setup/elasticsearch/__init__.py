"""Set up Elasticsearch: inference endpoints, a pipeline and an index, if the licence has them."""
