"""Items that a thread draws while the last is worked on: the same ones, in their order, and no thread left behind."""

import threading
from collections.abc import Iterator

import pytest

from mrpcbench.backends.ahead import MOST, drawn_ahead


def drawers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if "draws ahead" in thread.name]


def test_items_come_in_their_order_and_the_thread_ends_with_them() -> None:
    assert list(drawn_ahead(iter(range(100)))) == list(range(100))
    assert drawers() == []


def test_the_next_items_are_drawn_while_one_is_worked_on_and_no_more_than_may_be() -> None:
    drawn = [threading.Event() for _ in range(10)]

    def items() -> Iterator[int]:
        for index, event in enumerate(drawn):
            event.set()
            yield index

    found = drawn_ahead(items())
    assert next(found) == 0
    for ahead in range(1, 1 + MOST):
        assert drawn[ahead].wait(timeout=10)
    assert not drawn[1 + MOST].wait(timeout=0.1)
    assert next(found) == 1
    assert drawn[1 + MOST].wait(timeout=10)
    found.close()


def test_an_error_comes_after_the_items_before_it_and_is_the_very_one() -> None:
    error = KeyError("the third")

    def items() -> Iterator[int]:
        yield from (1, 2)
        raise error

    found = drawn_ahead(items())
    assert [next(found), next(found)] == [1, 2]
    with pytest.raises(KeyError) as caught:
        next(found)
    assert caught.value is error
    assert drawers() == []


def test_closing_early_closes_the_items_and_leaves_no_thread() -> None:
    closed = []

    def items() -> Iterator[int]:
        try:
            yield from range(1000)
        finally:
            closed.append(threading.current_thread().name)

    found = drawn_ahead(items())
    assert next(found) == 0
    found.close()
    assert closed == ["mrpcbench draws ahead"]
    assert drawers() == []


def test_a_sequence_needs_no_thread() -> None:
    found = drawn_ahead([1, 2, 3])
    assert next(found) == 1
    assert drawers() == []
    assert list(found) == [2, 3]


def test_what_cannot_be_iterated_says_so() -> None:
    with pytest.raises(TypeError, match="not iterable"):
        list(drawn_ahead(3))  # type: ignore[arg-type]
    assert drawers() == []
