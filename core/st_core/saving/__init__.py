"""Save models and their graphs to folders, and upload them to the Hub."""
