"""Trying a release before it is production."""
