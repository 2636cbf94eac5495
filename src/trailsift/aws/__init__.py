"""Access to AWS: clients, event selectors, Iceberg tables in Glue, and the Lambda function.

``client`` creates boto3 clients and explains their errors; ``trail`` (CloudTrail) and ``glue_catalog`` (Glue and S3)
each wrap one service. ``selectors`` decides on plain values and calls nothing. ``transform`` is the code that runs in
Lambda, and ``handler`` is its entry point. Templates and other generated files are in ``trailsift.deploy``.
"""
