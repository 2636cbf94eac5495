"""Answers on a terminal: tables, heat strips, progress. Nothing here asks a question of its own."""
