"""Draws the next items of an iterable in a thread of its own, while the caller is busy with the last."""

import threading
from collections.abc import Callable, Generator, Iterable, Sequence
from functools import partial
from queue import SimpleQueue
from typing import Generic, NoReturn, TypeVar

T = TypeVar("T")

# How many items may lie ready: one while the caller works, and one that is being made.
MOST = 2


def drawn_ahead(items: Iterable[T], most: int = MOST) -> Generator[T, None, None]:
    """`items` in their order; what they raise is raised here, after what came before it.

    A thread draws at most `most` items more than were taken, and none from a sequence, which has its items already.
    When this generator is closed early, the thread ends after the item that it is drawing, closes `items`, and is
    waited for.
    """
    if isinstance(items, Sequence):
        yield from items
        return
    drawer = _Drawer(items, most)
    drawer.start()
    try:
        while (told := drawer.ready.get()) is not None:
            drawer.room.release()
            yield told()
    finally:
        drawer.stop()


class _Drawer(threading.Thread, Generic[T]):
    """Puts into `ready` a function for each item, which returns it, or raises what drawing it raised; at the end None.

    `room` counts the items that may still be drawn before one is taken.
    """

    def __init__(self, items: Iterable[T], most: int) -> None:
        super().__init__(name="mrpcbench draws ahead", daemon=True)
        self.ready: SimpleQueue[Callable[[], T] | None] = SimpleQueue()
        self.room = threading.Semaphore(most)
        self._items = items
        self._stopped = False

    def run(self) -> None:
        """Draw until there is nothing left, or nobody takes what was drawn."""
        try:
            items = iter(self._items)
            while self.room.acquire() and not self._stopped:
                self.ready.put(partial(_same, next(items)))
            if isinstance(items, Generator):
                items.close()
        except StopIteration:
            pass
        except BaseException as error:  # it belongs to whoever takes the items
            self.ready.put(partial(_raise, error))
        finally:
            self.ready.put(None)

    def stop(self) -> None:
        """Have the thread end, and wait for it."""
        self._stopped = True
        self.room.release()
        self.join()


def _same(item: T) -> T:
    return item


def _raise(error: BaseException) -> NoReturn:
    raise error
