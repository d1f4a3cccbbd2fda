"""Run folders in, tables, pictures and one page out: nothing is trained here, and no model is loaded.

collecting   folders -> the finished runs in them, and what was left out with the reason
starts       runs -> the same, those that each go on from a seed of one pretraining as seeds of one variant
comparing    runs -> variants with their seeds, means with intervals, differences from a baseline
tables       variants -> text, Markdown, CSV, LaTeX
looks        what all pictures share: colours, SVG that follows the theme of its page
pictures     variants -> exact match; curves: loss; tradeoffs: cost; slices: where accuracy comes from
records      variants -> settings and provenance; cards: knowledge.json; browsing: all answers, small
page         all of it as one HTML file, of the sections in sections and the pieces in markup
progress     folders -> which runs are at work, how far, until when
"""
