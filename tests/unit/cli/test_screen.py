"""What is shown is what stands on the terminal, whatever stood there before and whatever size it has become."""

from __future__ import annotations

import os

import pyte
from hypothesis import given, settings
from hypothesis import strategies as st

from threadline.cli.watch.screen import Line, Screen

PICTURES = st.lists(st.text(st.sampled_from("ab "), max_size=30).map(str.rstrip), max_size=12)
SIZES = st.tuples(st.integers(8, 40), st.integers(4, 20))


class Tty:
    """A terminal that is written to as a file."""

    def __init__(self, width: int, height: int) -> None:
        self.screen = pyte.Screen(width, height)
        self.screen.set_mode(pyte.modes.LNM)
        self._stream = pyte.Stream(self.screen)
        self.written = 0

    def write(self, text: str) -> None:
        self.written += len(text)
        self._stream.feed(text)

    def flush(self) -> None:
        """Nothing waits."""

    def size(self) -> os.terminal_size:
        return os.terminal_size((self.screen.columns, self.screen.lines))

    @property
    def lines(self) -> list[str]:
        return [line.rstrip() for line in self.screen.display]


def fitted(picture: list[str], tty: Tty) -> list[Line]:
    """As the picture is made: one line less than there are, none wider than there is room."""
    columns, lines = tty.size()
    return [Line(text[:columns], len(text[:columns])) for text in picture[: lines - 1]]


def last(tty: Tty, count: int) -> list[str]:
    """The lines down to the cursor's, which stands on the last one."""
    below = tty.screen.cursor.y
    return tty.lines[below - count + 1 : below + 1]


@given(st.lists(PICTURES, min_size=1, max_size=8), SIZES)
@settings(max_examples=150, deadline=None)
def test_each_picture_replaces_the_one_before(pictures, size):
    tty = Tty(*size)
    tty.write("$ threadline watch\r\n")
    screen = Screen(tty, size=tty.size)
    for picture in pictures:
        lines = fitted(picture, tty)
        screen.show(lines)
        if lines:
            assert last(tty, len(lines)) == [line.text.rstrip() for line in lines]
        assert not any(tty.lines[tty.screen.cursor.y + 1 :])
        if len(lines) < size[1] - 2 and max(map(len, pictures)) < size[1] - 2:
            assert tty.lines[0] == "$ threadline watch"[: size[0]].rstrip()


@given(st.lists(st.tuples(PICTURES, SIZES), min_size=1, max_size=6))
@settings(max_examples=150, deadline=None)
def test_a_terminal_of_another_size_shows_one_picture(steps):
    tty = Tty(20, 10)
    screen = Screen(tty, size=tty.size)
    for picture, (width, height) in steps:
        tty.screen.resize(height, width)
        lines = fitted(picture, tty)
        screen.show(lines)
        if lines:
            assert last(tty, len(lines)) == [line.text.rstrip() for line in lines]
        assert not any(tty.lines[tty.screen.cursor.y + 1 :])


def test_a_line_of_ones_own_stays_above():
    tty = Tty(30, 10)
    screen = Screen(tty, size=tty.size)
    lines = [Line("one", 3), Line("two", 3)]
    screen.show(lines)
    screen.above("kill -9", lines)
    screen.show([Line("one", 3), Line("three", 5)])
    screen.close([Line("end", 3)])
    assert tty.lines[:3] == ["kill -9", "end", ""]
    assert (tty.screen.cursor.y, tty.screen.cursor.hidden) == (2, False)


def test_only_what_has_changed_is_written():
    tty = Tty(80, 24)
    screen = Screen(tty, size=tty.size)
    lines = [Line("x" * 80, 80) for _ in range(20)]
    screen.show(lines)
    before = tty.written
    screen.show(lines)
    assert tty.written == before
    screen.show([Line("⠙", 1), *lines[1:]])
    assert tty.written - before < 160


def test_a_line_that_the_terminal_takes_for_wider_moves_no_other():
    tty = Tty(10, 6)
    screen = Screen(tty, size=tty.size)
    lines = [Line("x" * 14, 10), Line("below", 5)]
    screen.show(lines)
    screen.show([lines[0], Line("changed", 7)])
    assert tty.lines[:2] == ["xxxxxxxxxx"[:9] + "x", "changed"]


def test_a_terminal_that_tells_no_size_has_eighty_by_twenty_four():
    def none() -> os.terminal_size:
        raise OSError

    assert Screen(Tty(10, 10), size=none).size == (80, 24)
    assert Screen(Tty(10, 10), size=lambda: os.terminal_size((0, 0))).size == (80, 24)
