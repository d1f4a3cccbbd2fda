"""From predictions to measures. Four know a model (`signals`, `stored`, `probe`, `dropout_agreement`), the others what
was asked and said.

exact_match     how many predictions equal the answer, with an interval; prediction files
baselines       what can be predicted without a model
slices          the same score for rare and frequent places, early and late answers
voting          what several runs of a model say most often
signals         how sure the model lets on to be, in several ways (dropout_agreement: how many thinned networks agree)
selective       does the model know when it is wrong (ranking: the measures; resampling: their intervals)
calibration     do its probabilities mean what they say (temperature: making them do so)
readings        every signal as the probability that the answer is right
detector        several signals made into one (logistic: how it and the temperature are fitted)
stored          what the model completes in a biography beside what it answers (probe: what its states show)
unknown_names   names of people nobody wrote of (guesses: what is answered about them)
error_types     what the wrong answers are (countries: where real places lie; shares: how every share is reported)
crosswise       what is fitted on questions and reported on the same, each half with the fit of the other
fits            detector, calibration and thresholds, fitted on other people or crosswise
"""
