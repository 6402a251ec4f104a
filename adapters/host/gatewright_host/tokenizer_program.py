def count_with_program(tokenization, text, messages): raise ValueError("stub")
