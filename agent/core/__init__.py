"""Deciding: pure functions over frozen values."""
