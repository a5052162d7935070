"""The S3 store: one bucket of S3 or of a compatible store, through boto3. Nothing else imports boto3."""
