"""Things that say "look now"; a trigger never decides."""
