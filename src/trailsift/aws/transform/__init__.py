"""The Firehose transformation."""
