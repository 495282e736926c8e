"""Crawling a site."""
