"""trailsift: answers from CloudTrail data events in milliseconds."""

__version__ = "0.1.0"
