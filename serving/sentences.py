"""500 unlabelled sentences of ours: what an export is compared on when no data is given.

Requests, opinions and news in eight languages, from one word to several sentences, put together
from the phrases below in a fixed order.
"""

COUNT = 500

# language: beginnings and endings, any of which fit together
_PHRASES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "English requests": (
        (
            "Play",
            "Please find",
            "Could you add",
            "I'd like to hear",
            "Remind me at 7 p.m. about",
            "Rate",
            "Where can I get",
            "Don't show me",
            "How much is",
            "Book a table and then look for",
            "Is there any news about",
        ),
        (
            "the next song",
            "a quiet place near the harbour",
            "my running list",
            "two tickets for Saturday's match",
            "the weather in Lisbon tomorrow morning",
            "something funny for the children",
            "the book on the history of bread, five stars",
            "a cheap flight from Oslo to Rome on May 3rd",
            "that old album with the blue cover",
        ),
    ),
    "English opinions": (
        (
            "The first half was",
            "Nobody in the cast seems",
            "For a sequel, it is",
            "I can't say that the service is",
            "My neighbour's new phone turned out",
            "After two hours the whole affair felt",
            "Say what you will, the food is",
            "The update made everything",
            "This team has never been",
            "As a thriller it stays",
            "The battery, like the rest of it, is",
            "Her third novel is, page after page,",
        ),
        (
            "surprisingly warm and well made.",
            "dull.",
            "far too long for the little it has to tell!",
            "neither good nor bad, only loud.",
            "worth every cent, and I would pay it again.",
            "a bit clumsy, though never without charm.",
            "so broken that I want my money back?!",
            "better than last year, which isn't saying much.",
            "a waste of a whole evening",
            "brilliant from beginning to end!",
            "slow, cold and tedious.",
        ),
    ),
    "English news": (
        (
            "The city council",
            "A small bank in the north",
            "The striker of the home side",
            "Shares of the chip maker",
            "After heavy rain, the railway",
            "The minister of education",
        ),
        (
            "announced a new plan on Tuesday.",
            "lost 4.5% in a single afternoon",
            "will not return before spring, a spokesman said.",
            "faces questions over a contract worth $12 million",
            "surprised everyone and won again.",
        ),
    ),
    "German": (
        (
            "Die Fahrt nach Hamburg war",
            "Der zweite Teil des Films ist",
            "Unser Vermieter fand die Heizung",
            "Ich hielt das Konzert für",
        ),
        (
            "überraschend gut.",
            "viel zu teuer, aber schön.",
            "leider kaputt",
            "nicht der Rede wert; morgen mehr dazu.",
        ),
    ),
    "French": (
        (
            "Le train de nuit est",
            "Cette chanson me paraît",
            "Le repas d'hier soir était",
            "Votre réponse semble",
        ),
        (
            "très agréable.",
            "un peu froid, comme d'habitude",
            "trop long pour les enfants !",
            "excellent, je recommande.",
        ),
    ),
    "Spanish": (
        (
            "El hotel junto a la playa es",
            "La última temporada fue",
            "Mi nueva bicicleta resulta",
            "El partido de anoche me pareció",
        ),
        (
            "una maravilla.",
            "demasiado ruidosa",
            "lo peor del año, sin duda.",
            "¿de verdad tan cara?",
        ),
    ),
    "Russian": (
        ("Новый фильм показался мне", "Этот чайник", "Вчерашний ужин был"),
        ("очень хорошим.", "слишком дорогой", "так себе, но терпимо!"),
    ),
    "Korean": (
        ("어제 본 영화는", "새로 산 의자가", "이 식당의 음식은"),
        ("정말 좋았어요.", "생각보다 별로였습니다", "너무 비싸서 다시는 안 가요!"),
    ),
    "Chinese and Japanese": (
        ("这家店的咖啡", "昨天的比赛", "新しい電車は", "隣の部屋が"),
        ("非常好。", "太差了!", "とても静かです。", "少し高いと思う"),
    ),
}
_SHORT = (
    *("no", "Great!", "ok", "why?", "not bad", "Stop it.", "thanks a lot", "refund please"),
    *("zxqv blorptastic", "!!!", "3.14", "A+", "nein danke", "très bien", "좋아요", "不错"),
)


def bundled() -> list[str]:
    """Return the 500 sentences, all different, in an order that mixes kinds and lengths."""
    kinds = [_mixed([f"{a} {b}" for a in begin for b in end]) for begin, end in _PHRASES.values()]
    singles = [text for kind in kinds for text in kind]
    longs = [" ".join(kind[i : i + 6]) for kind in kinds for i in range(0, len(kind) - 5, 5)]
    pairs = [" ".join(pair) for kind in kinds for pair in zip(kind, kind[3:], strict=False)]
    return _mixed([*_SHORT, *singles, *longs, *pairs][:COUNT])


def _mixed(texts: list[str]) -> list[str]:
    """Return ``texts`` in another order: a prime step visits each of them once."""
    return [texts[i * 131 % len(texts)] for i in range(len(texts))]
