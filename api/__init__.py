"""Every way in from outside."""
