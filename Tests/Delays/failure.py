"""What a test fails with."""


class Failed(Exception):
    """Something was not as it must be; the text says what, in as many lines as that takes."""


def expect(holds: bool, what: str) -> None:
    """Fails unless something holds."""
    if not holds:
        raise Failed(what)
