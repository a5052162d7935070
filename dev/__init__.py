"""What developers and tests need around the application: real services without Docker, the demo. Never shipped."""
