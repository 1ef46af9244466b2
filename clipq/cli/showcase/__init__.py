"""What `clipq demo` shows: pictures answered in fp32 and in another precision, the verdict, and the page about them.

Nothing here reads arguments, loads a model or writes a file.
"""
