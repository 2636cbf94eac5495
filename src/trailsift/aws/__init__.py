"""The AWS side: the transformation in a Firehose stream, SQL for Athena, selectors, boards, templates.

What decides is pure and prints or returns values; what speaks to AWS does so through one small seam each.
"""
