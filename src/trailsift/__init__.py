"""Store AWS CloudTrail data events in a local Iceberg lake and query them in milliseconds.

::

    import trailsift

    with trailsift.Lake("my.lake") as lake:
        lake.ingest("AWSLogs")
        lake.query("SELECT event_name, count(*) AS calls FROM events GROUP BY 1").show()
        for finding in lake.findings():
            print(finding)

A public name is imported when it is first used: `import trailsift` costs nothing, and the zip of the Lambda function,
which holds what its modules import, stays without the rest of the package. Types are in `__init__.pyi`.
"""

__version__ = "0.1.0"

#: Public name -> the module that defines it.
_MODULES = {
    "ConflictError": "trailsift.errors",
    "Counts": "trailsift.ingest.counts",
    "EngineError": "trailsift.errors",
    "GlueError": "trailsift.errors",
    "Lake": "trailsift.api",
    "LakeError": "trailsift.errors",
    "QueryError": "trailsift.errors",
    "QueryMemoryError": "trailsift.errors",
    "QueryResult": "trailsift.query.query_result",
    "QueryTimeoutError": "trailsift.errors",
    "Rules": "trailsift.rules",
    "RulesError": "trailsift.errors",
    "S3Error": "trailsift.errors",
    "SnapshotGoneError": "trailsift.errors",
    "SourceError": "trailsift.errors",
    "TrailsiftError": "trailsift.errors",
    "UnknownOutcomeError": "trailsift.errors",
    "UsageError": "trailsift.errors",
}
__all__ = ["__version__", *_MODULES]


def __getattr__(name: str) -> object:
    """Import a public name on first use (PEP 562)."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names only."""
    return sorted(__all__)
