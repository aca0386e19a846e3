"""Work with rows that fail or kill their worker."""

from barycenter.infra.dispatch.api import Work


class Poisoned:
    """Dies of, or raises at, certain rows."""

    def __init__(self, rows, deed):
        self.rows, self.deed = set(rows), deed

    def run(self, payload):
        number, skip = payload
        self.try_rows(payload, tuple(row for row in range(number) if row not in skip))
        return number - len(skip)

    def try_rows(self, payload, rows):
        if self.rows & set(rows):
            self.deed()


def without_rows(work, rows):
    number, skip = work.payload
    return Work(work.id, (number, skip + rows), work.rows)
