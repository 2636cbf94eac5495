"""The first look: logs are generated, ingested and asked, and every step is timed."""
