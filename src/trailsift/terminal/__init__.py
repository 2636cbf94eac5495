"""Reports on a terminal: tables, heat maps, progress. Nothing here queries a lake."""
