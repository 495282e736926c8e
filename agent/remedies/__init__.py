"""Finding, validating and running remedies."""
