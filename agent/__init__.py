"""Everything the agent does; it never imports api."""
