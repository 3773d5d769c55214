"""Entry point of the program: handles Ctrl-C before anything that takes time is imported."""

from __future__ import annotations

from cvnet_engine import interrupts

interrupts.arm()


def main() -> None:
    from cvnet_engine import cli

    cli.main()


if __name__ == "__main__":
    main()
