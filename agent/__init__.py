"""Everything the agent does; it never imports api."""

__version__ = "0.1.0"
