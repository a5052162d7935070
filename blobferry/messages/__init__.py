"""Messages: publishing a job's row to the workers; reads and their answers."""
