"""What the emulator raises, each a RuntimeError so that code under test cannot mistake it for its own."""


class EmulatorError(RuntimeError):
    """A kernel did something that a GPU forbids or leaves undefined, or it was launched in such a way."""


class CompilationError(EmulatorError):
    """g++ refused the source; the message is the compiler's."""


class ToolchainMissing(EmulatorError):
    """There is no g++ (or readelf) here."""
