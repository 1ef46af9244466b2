"""From files to vectors, in a race: the sets of files, the contestants, each of them in a process of its own."""
