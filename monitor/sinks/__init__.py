"""Destinations of documents, one file for each."""
