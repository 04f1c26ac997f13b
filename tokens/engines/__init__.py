"""Tokenizer engines, and the certificates that say where their ids can be trusted."""
