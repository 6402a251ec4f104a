"""What the heuristic estimator looks at: counts over a request's text, taken where the text is, so that the text need not travel."""

from attrs import frozen


@frozen(kw_only=True)
class PromptSignals:
    """Counts over one request.

    Attributes:
        task: Name of the task, where the client named one.
        task_words: Words of the task's name and description that speak of hard work, less those that speak of easy work.
        text_characters: All text of the prompt.
        inputs: Separate inputs: documents, fields, files.
        turns: Messages of the conversation.
        reasoning_cues: Words that ask for reasons, proofs, comparisons.
        steps: Signs of several steps: numbered lists, "then", "finally".
        code: Signs of program text.
        mathematics: Signs of formulas and of questions for numbers.
        terms: Words of specialised fields.
        constraints: Conditions on the form of the answer: schema, format, length.
        tools: Tools that the model may call.
        media: Pictures and sounds.
        answer_tokens: Limit that the client named for the answer.
    """

    task: str = ""
    task_words: int = 0
    text_characters: int = 0
    inputs: int = 1
    turns: int = 1
    reasoning_cues: int = 0
    steps: int = 0
    code: int = 0
    mathematics: int = 0
    terms: int = 0
    constraints: int = 0
    tools: int = 0
    media: int = 0
    answer_tokens: int | None = None
