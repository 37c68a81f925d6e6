"""The command line: parse, ask the library, print. One file a command; none imports torch before it has to."""
