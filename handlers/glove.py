"""The handler of archives with word vectors."""

from handlers.base import BaseHandler


class GloveHandler(BaseHandler):
    """Split into words, look up vectors, decode."""

    kind = "glove"
