"""The code of the Lambda function that transforms the records of a Firehose stream.

``reader`` and ``writer`` turn CloudTrail records into landing lines, ``firehose`` decides what each input record
becomes, ``stream`` sends records back to the stream, and ``metrics`` reports to CloudWatch. The zip that
``trailsift.deploy.package`` builds contains these modules.
"""
