"""Data: the one record of every data set, IconWorld, readers for real sets, vocabularies and prompt templates."""
