"""For people who write remedies: a first draft, what is wrong with one, and a trial in a lab."""
