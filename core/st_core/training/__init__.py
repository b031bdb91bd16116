"""Train and finetune models with the names of sentence-transformers 6.2; needs the extra ``train``."""
