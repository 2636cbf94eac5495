"""Columnar kernels that the ingest and the lake share: Arrow types, grouping, summaries."""
