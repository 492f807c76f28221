"""The page of a study: one HTML file that is read offline, made from the tables and figures alone."""
