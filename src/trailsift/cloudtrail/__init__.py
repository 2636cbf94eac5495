"""What the parts of a CloudTrail record mean: the resource touched, the pattern of a key, the origin of a call."""
