"""Webhooks: the ends of jobs, posted to endpoints by the Standard Webhooks specification."""
