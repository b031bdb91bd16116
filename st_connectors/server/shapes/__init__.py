"""The shapes of each protocol: pure functions from the JSON of a request to calls, and from results to JSON."""
