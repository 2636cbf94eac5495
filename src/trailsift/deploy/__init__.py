"""What is deployed to AWS: templates, tables, SQL, dashboards, the Lambda package."""
