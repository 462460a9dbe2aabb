"""Do something beside a fault again and again, in a thread whose errors are not lost."""

import contextlib
import threading
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def repeated(pause: float) -> Iterator[Callable[[Callable[[], None]], None]]:
    """Yield how to begin to do something again and again; an error of it is raised at the end."""
    over, errors = threading.Event(), list[Exception]()

    def work(do: Callable[[], None]) -> None:
        try:
            while not over.wait(pause):
                do()
        except Exception as error:  # noqa: BLE001 - raised again below
            errors.append(error)

    threads = list[threading.Thread]()

    def begin(do: Callable[[], None]) -> None:
        threads.append(threading.Thread(target=work, args=(do,), daemon=True))
        threads[-1].start()

    try:
        yield begin
    finally:
        over.set()
        for thread in threads:
            thread.join()
    for error in errors:
        raise error
