"""The page's own small routes, which its scripts call."""
