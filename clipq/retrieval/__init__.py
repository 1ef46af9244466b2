"""Rankings: exact search over rows that stream by, how alike two rankings are, and intervals over queries.

Pure functions of matrices: nothing here knows a model or a file.
"""
