"""Readers of files: each has `text`, which takes bytes; its library is imported with the first file of its kind.

plain  text, Markdown, tables;  markup  HTML;  pdf  PDF
"""
