"""What happened, written down for people: pure, and nothing in it that was not observed."""
