"""What the stores of our own have in common: they refuse what S3 refuses, whatever their buckets are made of."""
