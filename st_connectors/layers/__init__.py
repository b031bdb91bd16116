"""Wrap a store in one behaviour each, from store to store: guard, fuse, isolate, retry."""
