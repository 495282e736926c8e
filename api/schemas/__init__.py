"""The wire: what the API takes and gives, each type with its one converter (`of`).

One module for each noun, named as its routes are; `wire` has what all share. Instants are RFC 3339
in UTC, durations end in `_seconds`. Options that a remedy declares with `no_log` are masked.
"""
