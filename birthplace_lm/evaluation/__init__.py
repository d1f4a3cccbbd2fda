"""From predictions to measures: nothing here knows a model, only questions, answers and what was said.

exact_match     how many predictions equal the answer, with an interval; prediction files
baselines       what can be predicted without a model
slices          the same score for rare and frequent places, early and late answers
selective       does the model know when it is wrong
unknown_names   what is answered about people nobody wrote of
"""
