"""The meaning of parts of a CloudTrail record: resources touched, patterns of object keys, the origin of a call."""
