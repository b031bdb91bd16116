"""Save models and export their graphs."""
