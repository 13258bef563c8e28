"""`ringfence` with the toy suites and the scripted engine, as a program of its own."""

from __future__ import annotations

from evaluation_parts import install

from ringfence.cli import main

if __name__ == "__main__":
    install()
    main()
