"""Loss functions of the three kinds of models, with the names and arguments of sentence-transformers 6.2."""
