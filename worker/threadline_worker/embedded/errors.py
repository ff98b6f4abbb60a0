"""What can keep the embedded servers from running; each message is for a person and says what to do."""

from __future__ import annotations

from threadline.errors import BackendUnavailable

__all__ = ["EmbeddedFailed", "EmbeddedUnavailable"]

# Named like the other errors of the public contract, without the suffix that N818 asks for.


class EmbeddedUnavailable(BackendUnavailable):
    """Neither a wheel nor a program fits this machine; names what to install or which variable to set."""


class EmbeddedFailed(BackendUnavailable):
    """A server or its folder cannot be used; names the folder or shows the end of the server's log."""
