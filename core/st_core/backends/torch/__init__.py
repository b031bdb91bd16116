"""Run stacks of modules with torch."""
