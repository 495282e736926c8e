"""The hostmend command, one file per group."""
