"""What a text must be, asked before anything heavy is imported."""


def text_problem(text: str) -> str | None:
    """Say what makes ``text`` impossible to classify, or None."""
    if not text.strip():
        return "the text is empty"
    try:
        text.encode()
    except UnicodeEncodeError:
        return "the text holds half of a surrogate pair"
    return None
