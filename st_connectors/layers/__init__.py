"""Layers: stores that wrap another store and add one behaviour each."""
