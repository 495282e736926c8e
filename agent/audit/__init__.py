"""Crawls a site and verifies every page and resource; the crawl runs in a child of its own."""
