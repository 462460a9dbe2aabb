"""What a text must be, asked before anything heavy is imported."""


def text_problem(text: str) -> str | None:
    """Say what makes ``text`` impossible to classify, or None."""
    if not text.strip():
        return "the text is empty"
    return None if is_unicode(text) else "the text holds half of a surrogate pair"


def is_unicode(text: str) -> bool:
    """Tell whether ``text`` can be written as UTF-8, which halves of surrogate pairs cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
