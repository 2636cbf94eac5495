"""Generated files for AWS: CloudFormation, SQL for Athena, dashboards, requests to Glue, and the zip for Lambda.

Everything is computed from a ``StackConfig``; nothing here needs credentials or calls AWS.
"""
