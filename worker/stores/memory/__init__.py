"""The memory store: a real store in a dict, as strict as S3 where S3 is strict."""
