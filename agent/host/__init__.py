"""Edges to this machine that several parts share."""
